UPDATE {{ tracks.table }} SET {{ tracks.stage }} = :stage WHERE {{ tracks.id }} = :track
