DROP TABLE IF EXISTS canvas_viewport;
