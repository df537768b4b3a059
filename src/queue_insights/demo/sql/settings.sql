-- Of the transaction that makes the tables and fills them.
SET LOCAL timezone = 'UTC';
SET LOCAL lock_timeout = '3s';
SET LOCAL statement_timeout = 0;
SET LOCAL client_min_messages = warning;
SET LOCAL work_mem = '128MB';
