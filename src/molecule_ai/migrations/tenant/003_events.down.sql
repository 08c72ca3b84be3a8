DROP TABLE IF EXISTS ws_tickets;
DROP TABLE IF EXISTS event_frames;
DROP TABLE IF EXISTS structure_events;
DROP FUNCTION IF EXISTS settled_through(regclass, int);
DROP FUNCTION IF EXISTS draw_seq(regclass, int);
