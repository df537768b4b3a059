-- A track that nobody has locked and that is not at the first stage, so that every move is a change.
SELECT {{ tracks.id }} FROM {{ tracks.table }} WHERE {{ tracks.stage }} IS DISTINCT FROM {{ stages[0] | text }}
LIMIT 1 FOR UPDATE SKIP LOCKED
