{% set to = role | id %}
-- queue-insights {% if operator %}operator: what a reader may, and the actions with their undo
{%- else %}reader: all reads, reports, and dry runs; writes nothing{% endif %}.
-- Made for {{ made_for }}.
-- For the owner of the database and its tables to run; may be run again.
GRANT CONNECT ON DATABASE {{ database | id }} TO {{ to }};
GRANT USAGE ON SCHEMA {{ relations | map(attribute="schema") | unique(true) | map("id") | join(", ") }} TO {{ to }};
GRANT SELECT ON {{ relations | map(attribute="table") | join(", ") }} TO {{ to }};
{% if ours %}
GRANT USAGE ON SCHEMA queue_insights TO {{ to }};
GRANT SELECT ON {{ ours | join(", ") }} TO {{ to }};
{% endif %}
{% if operator %}
-- Postgres grants by table: rows that are not about tracks are included.
GRANT INSERT, UPDATE, DELETE ON {{ tasks.table }} TO {{ to }};
{% for sequence in sequences %}
GRANT USAGE ON SEQUENCE {{ sequence }} TO {{ to }};
{% endfor %}
-- No action changes a track. To lock one takes UPDATE on any one of its columns; this
-- is the one that says least: the table's own trigger, where there is one, sets it.
GRANT UPDATE ({{ tracks.updated_at }}) ON {{ tracks.table }} TO {{ to }};
{% if not ledger %}

-- The ledger, so that the role need not have CREATE on the database.

{% include "ledger.sql" %}

GRANT USAGE ON SCHEMA queue_insights TO {{ to }};
{% endif %}
GRANT SELECT, INSERT, UPDATE, DELETE ON queue_insights.runs, queue_insights.targets, queue_insights.batches TO {{ to }};
{% elif not complete %}
-- Not all of the ledger and the views of queue-insights is there yet: print this
-- again after the first action, and after `views install`.
{% endif %}
