-- The incident, third part: the tracks.

-- Titles that break what does not quote, escape or measure its text, where the eye falls on them:
-- in the line of align (by place in it) and elsewhere.
CREATE TEMP TABLE seed_tricky (step smallint, kind text, place int, title text) ON COMMIT DROP;
INSERT INTO seed_tricky VALUES
    (2, 'missing', 4, 'She Said "Don''t" (Live at O''Connor''s)'),
    (2, 'missing', 11, '<script>alert(1)</script>'),
    (2, 'missing', 19, 'يا نور العين (Remix) 2024'),
    (2, 'missing', 26, '=HYPERLINK("http://example.invalid";"Play")'),
    (2, 'missing', 34, '🔥 Fuego 💃🏽 (Más Perreo) 👩‍👩‍👧‍👦'),
    (2, 'missing', 41, 'The ' || repeat('Very, ', 48) || 'Long Goodbye'),
    (3, 'stuck', 1, E'Side A\nSide B'),
    (3, 'missing', 8, '夜に咲く花 - 단추 Version'),
    (1, 'missing', 10, 'Robert''); DROP TABLE tracks;--'),
    (1, 'exhausted', 2, '-1+1|cmd'' /C calc''!A0'),
    (4, 'drifted', 1, '50% & Rising \ {{ title }} $x_1$'),
    (4, 'exhausted', 1, ' ');

INSERT INTO tracks (
    spotify_track_id, tiktok_video_id, title, artists, album_name, release_date, duration_ms, isrc,
    primary_artist_id, primary_artist_name, stage, has_iswc, has_lyrics, has_audio,
    error_message, error_at, created_at, updated_at)
WITH words AS (
    SELECT string_to_array('Golden,Midnight,Broken,Electric,Silver,Lonely,Summer,Velvet,Crimson,'
        'Paper,Neon,Wild,Fading,Hollow,Restless,Sweet,Burning,Distant,Little,Frozen,Slow,Blue,'
        'Reckless,Quiet,Young,Lost,Sacred,Cheap,Holy,Stolen,Plastic,Heavy,Second,Last,Infinite,'
        'Bitter,Lucky,Dizzy,Secret,Feral', ',') AS adjectives,
    string_to_array('Heart,Lights,Dream,River,Fire,Ghost,Sky,Road,Letter,Mirror,Summer,Rain,Honey,'
        'Shadow,City,Ocean,Diamond,Thunder,Garden,Bullet,Window,Angel,Highway,Satellite,Wolf,'
        'Winter,Kiss,Machine,Home,Gravity,Flame,Stranger,Mountain,Tide,Echo,Crown,Desert,Motel,'
        'Radio,Photograph,Sugar,Money,Weekend,Butterfly,Moon,Corazón,Mañana,Étoile,Sommer,Luar',
        ',') AS nouns,
    string_to_array('Dancing,Falling,Waiting,Running,Crying,Drowning,Living,Burning,Driving,'
        'Dreaming,Calling,Leaving', ',') AS verbs,
    string_to_array('Maya,Luis,Aiko,Nina,Omar,Freya,Jonas,Ines,Theo,Sofía,Dev,Zuri,Malik,Elena,'
        'Kofi,Björn,Chloé,Rafael,Yara,Tomasz,Jin,Leila,Marco,Anouk', ',') AS first_names,
    string_to_array('Rivera,Stone,Okafor,Lindqvist,Moreau,Tanaka,Bright,Costa,Novak,Hale,Adeyemi,'
        'Fontaine,Castillo,Wilde,Kowalski,Nguyen,Park,Silva,Marsh,Duarte,Haddad,Ferro', ',')
        AS last_names,
    string_to_array('Boys,Sisters,Collective,Parade,Club,Kids,Society,Orchestra,Riot,Theory', ',')
        AS bands,
    string_to_array('ready,ready,pkp_minted,lens_created,grc20_ready,grc20_submitted,encrypted,'
        'unlock_deployed,published,published', ',') AS later_stages,
    string_to_array(',,,,,,, (feat. %), - Remastered 2011, (Acoustic), (Slowed + Reverb), - Live,'
        ' (% Remix), (Deluxe)', ',') AS endings
), drawn AS (
    SELECT plan.item, plan.step, plan.kind, plan.place, plan.done,
           begun.started AS discovered, last.ended AS moved, standing.updated AS gave_up,
           md5('queue-insights track ' || plan.item) AS digest,
           hashint8extended(plan.item, 51) & 2147483647 AS a,
           hashint8extended(plan.item, 52) & 2147483647 AS b,
           hashint8extended(plan.item, 53) & 2147483647 AS c,
           -- An artist has many tracks, and few have most of them.
           floor(power(pg_temp.uniform(plan.item, 54), 2) * (SELECT tracks FROM seed_parameters)
                 / 6)::bigint AS artist
    FROM seed_plan AS plan
    JOIN seed_history AS begun ON begun.item = plan.item AND begun.step = 0
    LEFT JOIN seed_history AS last ON last.item = plan.item
        AND last.step = greatest(0, plan.done - (plan.kind IS NOT DISTINCT FROM 'drifted')::int)
    LEFT JOIN seed_standing AS standing ON standing.item = plan.item AND plan.kind = 'failed'
    ORDER BY plan.item
), named AS (
    SELECT drawn.*, words.*,
           hashint8extended(artist, 55) & 2147483647 AS d,
           'art' || left(md5('queue-insights artist ' || artist), 19) AS artist_id
    FROM drawn, words
), sung AS (
    SELECT *,
           CASE WHEN d % 3 > 0 THEN first_names[1 + d / 3 % 24] || ' ' || last_names[1 + d / 72 % 22]
                ELSE 'The ' || adjectives[1 + d / 3 % 40] || ' ' || bands[1 + d / 120 % 10]
           END AS artist_name,
           first_names[1 + c % 24] || ' ' || last_names[1 + c / 24 % 22] AS guest,
           adjectives[1 + b % 40] || ' ' || nouns[1 + b / 40 % 50] AS phrase
    FROM named
)
SELECT pg_temp.track_id(item),
       CASE WHEN a % 10 > 0 THEN (7000000000000000000 + item * 191803398871::bigint)::text END,
       coalesce(tricky.title,
           CASE a / 10 % 5
               WHEN 0 THEN phrase
               WHEN 1 THEN nouns[1 + a / 50 % 50]
               WHEN 2 THEN verbs[1 + a / 50 % 12] || ' in the ' || nouns[1 + a / 600 % 50]
               WHEN 3 THEN nouns[1 + a / 50 % 50] || ' & ' || nouns[1 + a / 2500 % 50]
               ELSE verbs[1 + a / 50 % 12] || ' ' || phrase
           END || replace(endings[1 + c / 600 % 14], '%', guest)),
       CASE WHEN endings[1 + c / 600 % 14] LIKE '%feat%'
           THEN jsonb_build_array(
               jsonb_build_object('id', artist_id, 'name', artist_name),
               jsonb_build_object('id', 'art' || left(md5(guest), 19), 'name', guest))
           ELSE jsonb_build_array(jsonb_build_object('id', artist_id, 'name', artist_name)) END,
       CASE WHEN b % 7 > 0 THEN phrase END,
       date '1965-01-01' + (b / 8 % 22000)::int,
       90000 + (c % 210000)::int,
       CASE WHEN a % 20 > 0 THEN 'QZ' || upper(substr(digest, 1, 3))
            || lpad((b % 10000000)::text, 7, '0') END,
       artist_id, artist_name,
       CASE plan.kind WHEN 'failed' THEN 'failed'
            WHEN 'elsewhere' THEN
                CASE plan.place % 2 WHEN 0 THEN 'translation_quiz_ready' ELSE 'trivia_ready' END
            ELSE coalesce(steps.stage, CASE WHEN variant = 'b' AND item < tracks * 0.6
                THEN later_stages[1 + a % 10] ELSE 'ready' END) END,
       plan.done >= -1 AND c % 8 > 0, plan.done >= 0, plan.done >= 1,
       CASE plan.kind WHEN 'failed' THEN steps.task_type || ' failed after 3 attempts' END,
       pg_temp.at_ms(gave_up),
       pg_temp.at_ms(discovered),
       pg_temp.at_ms(coalesce(gave_up, CASE plan.kind WHEN 'early' THEN discovered ELSE moved END))
FROM sung AS plan
LEFT JOIN seed_tricky AS tricky USING (step, kind, place)
LEFT JOIN seed_steps AS steps ON steps.step = CASE
    WHEN plan.kind <> 'orphaned' THEN plan.step END
CROSS JOIN seed_parameters;
