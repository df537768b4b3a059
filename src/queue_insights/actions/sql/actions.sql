{% from "macros.sql" import failure_of with context %}
{#- What each action takes, and what it makes of a row. ``r`` names the columns of k: ``tasks`` for a
    row of the table, ``named`` for one of the relations. -#}
{% macro takes(k, r, state) -%}
{% if action == "backfill" %}{{ state }} = 'missing'
{%- elif action == "reset" %}{{ state }} = 'stuck'
{%- elif action == "requeue" %}{{ state }} = 'drifted'
{%- elif kind == "vendor" %}{{ state }} = 'exhausted'
{%- elif action == "retry" %}{{ state }} IN ('exhausted', 'retryable', 'backing_off')
      AND ({{ k | id }}.{{ r.status }} = 'failed' OR {{ state }} = 'exhausted')
{%- elif action == "prune" %}{{ k | id }}.{{ r.status }} = {{ status | text }}
{%- endif %}
{%- endmacro %}

{% macro and_filters(k, r, arrived) -%}
{% if older_than is not none %}

      AND coalesce({{ k | id }}.{{ r.last_attempt_at }}, {{ arrived }}) < now() - {{ older_than | value }}
{%- endif %}
{% if error is not none %}

      AND strpos(lower({{ k | id }}.{{ r.error_message }}), lower({{ error | text }})) > 0
{%- endif %}
{% if failure is not none %}

      AND {{ k | id }}.{{ r.status }} IN ({{ failed | map("text") | wrapped }}) AND {{ failure_of(k ~ "." ~ r.error_message ~ "::text") }} = {{ failure | text }}
{%- endif %}
{%- endmacro %}

{#- The attempts of a row after it, and their limit: one without a usable limit would be exhausted
    whatever its attempts are. -#}
{% macro attempts_after(k, r) -%}
{% if kind == "insert" %}0
{%- elif kind in ("delete", "vendor") or attempts == "keep" %}{{ k | id }}.{{ r.attempts }}
{%- elif attempts == "refund" %}greatest(coalesce({{ k | id }}.{{ r.attempts }}, 0) - 1, 0)
{%- else %}0{% endif %}
{%- endmacro %}

{% macro limit_after(k, r, limit) -%}
{% if kind == "insert" %}{{ limit }}
{%- elif kind == "vendor" %}greatest({{ k | id }}.{{ r.max_attempts }}, {{ k | id }}.{{ r.attempts }} + 1)
{%- elif kind == "delete" or attempts == "keep" %}{{ k | id }}.{{ r.max_attempts }}
{%- else %}CASE WHEN {{ k | id }}.{{ r.max_attempts }} >= 1 THEN {{ k | id }}.{{ r.max_attempts }} ELSE {{ limit }} END{% endif %}
{%- endmacro %}

{#- A number that tells whether any column of row k has changed, but for updated_at, which the table's
    own trigger sets. -#}
{% macro digest() -%}
hash_record_extended(ROW({{ digest_columns | wrapped(20, 40) }}
        ), 20)
{%- endmacro %}
