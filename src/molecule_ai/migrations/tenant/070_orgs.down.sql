DROP INDEX IF EXISTS canvas_layouts_x_idx;
DROP TABLE IF EXISTS org_imports;
