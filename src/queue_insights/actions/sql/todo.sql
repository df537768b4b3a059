gone AS (
    DELETE FROM queue_insights.targets
    WHERE run = :run AND task_type = {{ step.task | text }} AND chunk >= :first AND chunk < :beyond
    RETURNING pass, ids, arrived),
todo AS (
    SELECT each.id, each.arrived, gone.pass FROM gone CROSS JOIN unnest(gone.ids, gone.arrived) AS each (id, arrived))
