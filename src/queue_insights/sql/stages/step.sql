WITH step (position, stage, task_type, {{ previous | map("id") | wrapped }}, stuck_after) AS NOT MATERIALIZED (VALUES
{%- for s in steps +%}
    ({{ s.position }}, {{ s.stage | text }}, {{ s.task | text }}, {{ s.leading | map("value") | wrapped }}, {{ s.stuck_after | value }}){% if not loop.last %},{% endif %}
{%- endfor %})
