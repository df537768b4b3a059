UPDATE {{ tracks.table }} SET {{ tracks.stage }} = :stage
