DROP TABLE IF EXISTS ws_tickets;
DROP TABLE IF EXISTS event_frames;
DROP TABLE IF EXISTS structure_events;
