-- queue-insights {% if operator %}operator: what a reader may, and the actions with their undo
{%- else %}reader: all reads, reports, and dry runs; writes nothing{% endif %}.
-- Made for {{ made_for }}.
-- For the owner of the database and its tables to run; may be run again.
GRANT CONNECT ON DATABASE {{ database | id }} TO {{ role | id }};
GRANT USAGE ON SCHEMA {{ homes | join(", ") }} TO {{ role | id }};
GRANT SELECT ON {{ relations | join(", ") }} TO {{ role | id }};
{% if ours %}
GRANT USAGE ON SCHEMA queue_insights TO {{ role | id }};
GRANT SELECT ON {{ ours | join(", ") }} TO {{ role | id }};
{% endif %}
{% if not operator and not complete %}
-- Not all of the ledger and the views of queue-insights is there yet: print this
-- again after the first action, and after `views install`.
{% endif %}
{% if operator %}
{% if variant == "b" %}
-- Postgres grants by table: this includes the rows of {{ shown_tasks }} that are not ours.
{% endif %}
GRANT INSERT, UPDATE, DELETE ON {{ tasks.table }} TO {{ role | id }};
{% for sequence in sequences %}
GRANT USAGE ON SEQUENCE {{ sequence }} TO {{ role | id }};
{% endfor %}
-- No action changes a track. To lock one takes UPDATE on any one of its columns; this
-- is the one that says least: the table's own trigger, where there is one, sets it.
GRANT UPDATE ({{ tracks.updated_at }}) ON {{ tracks.table }} TO {{ role | id }};
{% if not ledger %}

-- The ledger, so that the role need not have CREATE on the database.

{% include "ledger.sql" %}

GRANT USAGE ON SCHEMA queue_insights TO {{ role | id }};
{% endif %}
GRANT SELECT, INSERT, UPDATE, DELETE ON queue_insights.runs, queue_insights.targets, queue_insights.batches
{#- on the same line #} TO {{ role | id }};
{% endif %}
