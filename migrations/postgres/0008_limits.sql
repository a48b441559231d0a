-- Rate limits: how full each bucket is, what has been charged lately, and what administrators have set for one key. Times are
-- milliseconds since 1970 by the clock of the database; levels are millionths of a unit.
create table limit_bucket (
    bucket  text collate "C" primary key, -- 'user 1h joe@example.org': limit, period, key
    level   bigint not null,
    at      bigint not null,              -- when the level was right; of a calendar window, when it began
    expires bigint not null               -- empty by then; whole hours, so that it seldom changes
) with (
    -- A row is written again and again, and no indexed column changes: room on the page keeps that inside it (HOT).
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
create index limit_bucket_expires on limit_bucket (expires);

-- Not in the log of the database: after a crash a request that Postfix repeats may be charged twice, and never too little.
create unlogged table limit_charged (
    id      bigint primary key, -- digest of what makes a charge one: instance, recipient ...
    expires bigint not null
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index limit_charged_expires on limit_charged (expires);

create table limit_override (
    bucket      text collate "C" primary key,
    number      bigint,                         -- instead of the configured rate: units ..
    period      bigint,                         -- .. in so many milliseconds
    burst       bigint,                         -- units at once
    unlimited   boolean not null default false,
    until       bigint,                         -- end of the four above; null: none
    extra       bigint not null default 0,      -- granted on top of the burst, in units
    extra_until bigint,
    author      text not null default '',
    created     bigint not null default (extract(epoch from clock_timestamp()) * 1000)::bigint
);

-- Charges many requests at once, each wholly or not at all, in the order given.
--   buckets ..    what is charged, sorted by name, each once: its capacity, what runs out of it in a millisecond (0: a calendar window,
--                 which began at its since), how long it is of interest
--   parts ..      digests of charges, sorted, each once, and for how long a repetition is known
--   firsts        the first entry of each request, and the number of entries plus one
--   entry_parts   0, or the part that must be fresh for the entry to count
--   needs, units  room that must be there (0: charged in any case, up to the brim), and what is charged
-- refused: per request 0 charged, -1 charged earlier, else the bucket without room. levels: after all. in_force_*: when overrides hold.
-- Locks are taken in the order of the keys, parts before buckets, new buckets before old ones: no two callers can wait for each other.
create function limit_charge(
    given_now bigint, buckets text[], capacities bigint[], rates float8[], sinces bigint[], keeps bigint[],
    parts bigint[], part_keeps bigint[], firsts int[], entry_parts int[], entry_buckets int[], needs bigint[], units bigint[],
    out clock bigint, out refused int[], out levels bigint[], out in_force_capacities bigint[], out in_force_rates float8[]
) language plpgsql as $$
declare
    claimed bigint[];
    fresh   boolean[];
    changed boolean[];
    places  tid[];
    ats     bigint[];
    setting record;
    drained float8;
    stop    int;
    b       int;
    p       int;
    number  int := 1;
begin
    clock := coalesce(given_now, (extract(epoch from clock_timestamp()) * 1000)::bigint);

    with claim as (
        insert into limit_charged as c (id, expires)
        select n.id, ((clock + n.keep) / 1000 + 1) * 1000 from unnest(parts, part_keeps) as n (id, keep) order by n.id
        on conflict (id) do update set expires = excluded.expires where c.expires <= clock
        returning c.id
    )
    select array_agg(claim.id order by claim.id) into claimed from claim;
    fresh := array_fill(false, array[cardinality(parts)]);
    for p in 1 .. cardinality(parts) loop
        if claimed[number] = parts[p] then
            fresh[p] := true;
            number := number + 1;
        end if;
    end loop;

    loop
        insert into limit_bucket as l (bucket, level, at, expires)
        select n.bucket, 0, n.since, ((clock + n.keep) / 3600000 + 1) * 3600000
        from unnest(buckets, sinces, keeps) as n (bucket, since, keep)
        where (select o.at from limit_bucket as o where o.bucket = n.bucket) is null
        order by n.bucket collate "C"
        on conflict (bucket) do nothing;
        select array_agg(l.place), array_agg(l.level), array_agg(l.at) into places, levels, ats
        from (
            select o.ctid as place, o.level, o.at from limit_bucket as o where o.bucket = any (buckets) order by o.bucket for update
        ) as l;
        -- A bucket that was forgotten between the two statements is made again.
        exit when cardinality(places) = cardinality(buckets);
    end loop;
    clock := coalesce(given_now, (extract(epoch from clock_timestamp()) * 1000)::bigint);

    if exists (select from limit_override) then
        for setting in
            select n.place, o.* from unnest(buckets) with ordinality as n (bucket, place)
            cross join lateral (select * from limit_override as v where v.bucket = n.bucket offset 0) as o
        loop
            b := setting.place;
            if setting.until is null or setting.until > clock then
                if setting.unlimited then
                    capacities[b] := 8000000000000000000;
                elsif setting.number is not null then
                    capacities[b] := coalesce(setting.burst, setting.number) * 1000000;
                    if rates[b] > 0 then
                        rates[b] := setting.number::float8 * 1000000 / setting.period;
                    end if;
                end if;
            end if;
            if setting.extra_until > clock and capacities[b] < 8000000000000000000 then
                capacities[b] := capacities[b] + setting.extra * 1000000;
            end if;
        end loop;
        in_force_capacities := capacities;
        in_force_rates := rates;
    end if;

    for b in 1 .. cardinality(buckets) loop
        if rates[b] = 0 then
            if ats[b] < sinces[b] then
                levels[b] := 0;
                ats[b] := sinces[b];
            end if;
        elsif ats[b] < clock then
            drained := floor((clock - ats[b]) * rates[b]);
            levels[b] := case when drained >= levels[b] then 0 else levels[b] - drained::bigint end;
            ats[b] := clock;
        end if;
    end loop;

    changed := array_fill(false, array[cardinality(buckets)]);
    refused := array_fill(-1, array[cardinality(firsts) - 1]);
    for r in 1 .. cardinality(firsts) - 1 loop
        stop := -1;
        for e in firsts[r] .. firsts[r + 1] - 1 loop
            p := entry_parts[e];
            if p = 0 or fresh[p] then
                b := entry_buckets[e];
                if needs[e] > 0 and levels[b] + needs[e] > capacities[b] then
                    stop := b;
                    exit;
                end if;
                stop := 0;
            end if;
        end loop;
        refused[r] := stop;
        if stop = 0 then
            for e in firsts[r] .. firsts[r + 1] - 1 loop
                p := entry_parts[e];
                if units[e] > 0 and (p = 0 or fresh[p]) then
                    b := entry_buckets[e];
                    changed[b] := true;
                    levels[b] := case
                        when needs[e] > 0 then levels[b] + units[e]
                        else least(levels[b] + units[e], greatest(levels[b], capacities[b] + units[e])) end;
                end if;
            end loop;
            for e in firsts[r] .. firsts[r + 1] - 1 loop
                if entry_parts[e] > 0 then
                    fresh[entry_parts[e]] := false;
                end if;
            end loop;
        end if;
    end loop;

    update limit_bucket as o
    set level = n.level, at = n.at, expires = greatest(o.expires, ((clock + n.keep) / 3600000 + 1) * 3600000)
    from unnest(places, levels, ats, keeps, changed) as n (place, level, at, keep, changed)
    where n.changed and o.ctid = n.place;

    -- What was claimed and not charged is free again.
    if true = any (fresh) then
        delete from limit_charged as c using unnest(parts, fresh) as n (id, fresh) where n.fresh and c.id = n.id;
    end if;
end
$$;
