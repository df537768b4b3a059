{% set key = [tasks.subject_type, tasks.subject_id] if variant == "b" else [tasks.track_id] %}
{% set columns = (key if variant == "b" else []) + [tasks.track_id, tasks.task_type, tasks.status, tasks.attempts,
                                                    tasks.max_attempts, tasks.created_at] %}
{% set due %}{% for stage in stages %}{{ literal(stage) }}{% if not loop.last %}, {% endif %}{% endfor %}{% endset %}
-- Made for this unique key: plans the insert without running it, and fails if there is another.
EXPLAIN (COSTS OFF) INSERT INTO {{ tasks.table }}
    ({{ columns | join(", ") }})
VALUES ({{ (["NULL" | sql] * columns | length) | join(", ") }})
ON CONFLICT ({{ key | join(", ") }}, {{ tasks.task_type }}) DO NOTHING;

CREATE OR REPLACE FUNCTION {{ function }} RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS {{ quote }}
BEGIN
{% for stage in stages %}
    {%+ if not loop.first %}ELS{% endif %}IF NEW.{{ tracks.stage }} = {{ literal(stage) }} THEN
        INSERT INTO {{ tasks.table }}
            ({{ columns | join(", ") }})
        VALUES {% for s in steps if s.stage == stage %}
({% if variant == "b" %}{{ literal(subject) }}, NEW.{{ tracks.id }}, {% endif %}
NEW.{{ tracks.id }}, {{ literal(s.task) }}, 'pending', 0, {{ s.max_attempts }}, now()){% if not loop.last %},
               {{ "" | sql }}{% endif %}{% endfor +%}
        ON CONFLICT ({{ key | join(", ") }}, {{ tasks.task_type }}) DO NOTHING;
{% endfor %}
    END IF;
    RETURN NULL;
END
{{ quote }};
REVOKE ALL ON FUNCTION {{ function }} FROM PUBLIC;

CREATE OR REPLACE TRIGGER {{ on_insert }}
AFTER INSERT ON {{ tracks.table }} FOR EACH ROW
WHEN (NEW.{{ tracks.stage }} IN ({{ due }}))
EXECUTE FUNCTION {{ function }};

CREATE OR REPLACE TRIGGER {{ on_update }}
AFTER UPDATE {% if not any_update %}OF {{ tracks.stage }} {% endif %}ON {{ tracks.table }} FOR EACH ROW
WHEN (OLD.{{ tracks.stage }} IS DISTINCT FROM NEW.{{ tracks.stage }}
{#- on the same line #} AND NEW.{{ tracks.stage }} IN ({{ due }}))
EXECUTE FUNCTION {{ function }};
