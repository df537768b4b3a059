SELECT FROM {{ tasks.rows }} WHERE {{ tasks.completed_at }} >= :start
