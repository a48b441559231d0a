-- Rate limits: how full each bucket is, what has been charged lately, and what administrators have set for one key. Times are
-- milliseconds since 1970; levels are millionths of a unit.
create table limit_bucket (
    bucket  text not null primary key, -- 'user 1h joe@example.org': limit, period, key
    level   integer not null,
    at      integer not null,          -- when the level was right; of a calendar window, when it began
    expires integer not null           -- empty by then; whole hours, so that it seldom changes
) strict, without rowid;
create index limit_bucket_expires on limit_bucket (expires);

create table limit_charged (
    id      integer primary key, -- digest of what makes a charge one: instance, recipient ...
    expires integer not null
) strict;
create index limit_charged_expires on limit_charged (expires);

create table limit_override (
    bucket      text not null primary key,
    number      integer,                    -- instead of the configured rate: units ..
    period      integer,                    -- .. in so many milliseconds
    burst       integer,                    -- units at once
    unlimited   integer not null default 0,
    until       integer,                    -- end of the four above; null: none
    extra       integer not null default 0, -- granted on top of the burst, in units
    extra_until integer,
    author      text not null default '',
    created     integer not null default (cast(unixepoch('subsec') * 1000 as integer))
) strict, without rowid;
