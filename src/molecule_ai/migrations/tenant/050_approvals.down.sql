DROP TABLE IF EXISTS approval_rules;
DROP TABLE IF EXISTS approval_requests;
