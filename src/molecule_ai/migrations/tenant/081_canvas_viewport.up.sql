-- Which part of the canvas was looked at last: one shared row, and one for each person who is known.
CREATE TABLE IF NOT EXISTS canvas_viewport (
    id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id  text UNIQUE,
    x        double precision NOT NULL DEFAULT 0,
    y        double precision NOT NULL DEFAULT 0,
    zoom     double precision NOT NULL DEFAULT 1,
    saved_at timestamptz NOT NULL DEFAULT now()
);
