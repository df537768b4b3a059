DROP VIEW IF EXISTS queue_insights.backlog, queue_insights.audit, queue_insights.pending_tasks;
