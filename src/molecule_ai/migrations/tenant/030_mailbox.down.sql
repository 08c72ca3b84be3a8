DROP TABLE IF EXISTS delegations;
DROP TABLE IF EXISTS message_chains;
DROP TABLE IF EXISTS message_pairs;
DROP VIEW IF EXISTS workspace_load;
DROP TABLE IF EXISTS workspace_slots;
DROP TABLE IF EXISTS mailbox_messages;
