SELECT FROM {{ tasks.table }} WHERE {{ tasks.completed_at }} >= :start
