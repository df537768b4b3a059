INSERT INTO {{ tasks.table }} ({% if variant == "b" %}{{ tasks.subject_type }}, {{ tasks.subject_id }}, {% endif %}
    {{ tasks.track_id }}, {{ tasks.task_type }}, {{ tasks.status }})
SELECT {% if variant == "b" %}{{ subject | text }}, {{ tracks.id }}, {% endif %}
    {{ tracks.id }}, {{ steps[0].task | text }}, 'pending' FROM {{ tracks.table }}
