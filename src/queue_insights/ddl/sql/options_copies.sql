-- Tables like the two, the first with a sample in it, the second referring to it where the real one does.
CREATE TABLE {{ copy.tracks.table }} (LIKE {{ tracks.table }} INCLUDING ALL EXCLUDING GENERATED);
CREATE TABLE {{ copy.tasks.table }} (LIKE {{ tasks.table }} INCLUDING ALL);
INSERT INTO {{ copy.tracks.table }} OVERRIDING SYSTEM VALUE SELECT * FROM {{ tracks.table }} LIMIT {{ sample }};
{% if refers %}
ALTER TABLE {{ copy.tasks.table }}
    ADD FOREIGN KEY ({{ tasks.track_id }}) REFERENCES {{ copy.tracks.table }} ({{ tracks.id }});
{% endif %}
