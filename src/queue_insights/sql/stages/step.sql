WITH step (position, stage, task_type, {{ previous | map("id") | wrapped }}, stuck_after) AS NOT MATERIALIZED (VALUES
{%- for s in steps +%}
    ({{ s.position }}, {{ s.stage | text }}{{ as_stage }}, {{ s.task | text }}{{ as_task }}, {% for task in s.leading %}{{ task | value }}{{ as_task }}, {% endfor %}{{ s.stuck_after | value }}){% if not loop.last %},{% endif %}
{%- endfor %})
