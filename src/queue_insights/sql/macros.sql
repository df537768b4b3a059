{#- The words that every query shares. The CASE below is the one definition of the states. -#}
{#- Whether a time is one that ages can be reckoned from: infinity, 0001-01-01 and the like stand for none. -#}
{% macro is_time(at) -%}
{{ at }} BETWEEN '1900-01-01Z' AND '9999-12-31Z'
{%- endmacro %}

{% macro state(k, s) -%}
CASE
               WHEN {{ k | id }}.{{ tasks.id }} IS NULL THEN 'missing'
               WHEN {{ k | id }}.{{ tasks.status }} IN ('pending', {{ retryable | text }}) THEN CASE
{% if limited %}
                   WHEN ({{ k | id }}.{{ tasks.attempts }} < {{ k | id }}.{{ tasks.max_attempts }}) IS NOT TRUE THEN 'exhausted'
{% endif %}
                   WHEN {{ k | id }}.{{ tasks.next_retry_at }} > now() THEN 'backing_off'
                   WHEN {{ k | id }}.{{ tasks.status }} = 'pending' THEN 'pending'
                   ELSE 'retryable' END
               WHEN {{ k | id }}.{{ tasks.status }} = 'running' THEN CASE
                   WHEN {{ k | id }}.{{ tasks.last_attempt_at }} BETWEEN now() - {{ s | id }}.stuck_after AND now() + {{ s | id }}.stuck_after THEN 'running'
                   ELSE 'stuck' END
               WHEN {{ k | id }}.{{ tasks.status }} = 'completed' THEN 'drifted'
{% for word in as_they_are %}
               WHEN {{ k | id }}.{{ status_text }} = {{ word | text }} THEN {{ word | text }}
{% endfor %}
               ELSE 'other' END
{%- endmacro %}

{#- The rows k that are about tracks: in variant B others have rows, too. -#}
{% macro ours(k) -%}
{{ k | id }}.{{ tasks.subject_type }} = {{ subject | text }}
{%- endmacro %}

{% macro and_ours(k) %}{% if variant == "b" %} AND {{ ours(k) }}{% endif %}{% endmacro %}

{#- The rows k of the track t, written so that the unique key serves. -#}
{% macro of_track(k, t) -%}
{% if variant == "b" %}{{ ours(k) }} AND {% endif %}{{ k | id }}.{{ tasks.owner }} = {{ t | id }}.{{ tracks.id }}{{ as_owner }}
{%- endmacro %}

{#- Two rows of the same track. -#}
{% macro same_track(k, l) -%}
{% if variant == "b" %}{{ ours(k) }} AND {% endif %}{{ k | id }}.{{ tasks.owner }} = {{ l | id }}.{{ tasks.owner }}
{%- endmacro %}

{#- The tasks that lead to the step s: as many columns as the pipeline needs. -#}
{% macro leading_to(s) -%}
{% for name in previous %}{{ s | id }}.{{ name | id }}{% if not loop.last %}, {% endif %}{% endfor %}
{%- endmacro %}

{#- The completion that led row k to its step s, the latest where several tasks lead there. -#}
{% macro join_previous(k, s) -%}
{% if previous | length > 1 -%}
LEFT JOIN LATERAL (
        SELECT max(p.{{ tasks.completed_at }}) AS {{ tasks.completed_at }} FROM {{ tasks.rows }} AS p
        WHERE {{ same_track("p", k) }} AND p.{{ tasks.task_type }} IN ({{ leading_to(s) }})) AS p ON true
{%- else -%}
LEFT JOIN {{ tasks.rows }} AS p ON {{ same_track("p", k) }}
        AND p.{{ tasks.task_type }} = {{ s | id }}.previous
{%- endif %}
{%- endmacro %}

{#- How many steps a track at this stage has behind it; all of them where the stage is not on the way. -#}
{% macro steps_behind(stage) -%}
CASE {{ stage }} {{ behind | wrapped(12, 45, " ") }} ELSE {{ behind_all }} END
{%- endmacro %}

{#- The kind of a message: its numbers, ids, addresses, paths and quoted parts as *, so that alike ones are one.
    First the words that have a digit, which is cheap and leaves few messages different, then the rest. -#}
{% macro without_digits(message) -%}
regexp_replace({{ message }}, '[A-Za-z0-9_.:@/+-]*[0-9](([A-Za-z0-9_.:@/+-]|,[0-9])*[A-Za-z0-9_/])?', '*', 'g')
{%- endmacro %}

{% macro without_names(message) -%}
coalesce(nullif(btrim(regexp_replace({{ message }},
           E'([A-Za-z]+://|\\*[?&#])([^[:space:]"'']*[A-Za-z0-9_/=*])?|[A-Za-z_.+-]+@[A-Za-z.-]+|(/[A-Za-z_.@%+~=*-]+){2,}|"([^"\\\\]|\\\\.)*"|`[^`]*`'
           '|(?<![A-Za-z0-9])''([^'']|(?<=[[:alnum:]])''(?=[[:alnum:]]))*''(?![A-Za-z0-9])'
           '|[\\u201c\\u201e\\u00ab\\u300c][^\\u201c\\u201d\\u00bb\\u300d]*[\\u201c\\u201d\\u00bb\\u300d]'
           '|(?<![A-Za-z])[A-Fa-f]{8,}(?![A-Za-z])', '*', 'g'), E' \t\r\n'), ''), '(no message)')
{%- endmacro %}

{% macro failure_of(message) %}left(md5({{ without_names(without_digits(message | sql)) }}), 8){% endmacro %}

{#- What narrows a list down: the tracks of these ids, the failed rows of this kind. -#}
{% macro and_ids() %}{% if ids %} AND {{ track_id_text }} = ANY (CAST(:ids AS text[])){% endif %}{% endmacro %}

{% macro and_chosen() -%}
{{ and_ids() }}
{% if failure %} AND {{ is_failed }} AND {{ failure_of("error_message::text") }} = :failure{% endif %}
{%- endmacro %}

{% macro where_chosen() %}{% if ids or failure %} WHERE true{{ and_chosen() }}{% endif %}{% endmacro %}
