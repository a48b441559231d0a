-- What is remembered for a while: to whom we wrote, and networks that wrote to a trap. The columns are those of the PostgreSQL schema.
create table marks (
    key     text primary key not null, -- 'reply ann@our.example joe@their.example', 'trap 192.0.2.0/24'
    fact    text not null,             -- what led to it
    expires integer not null           -- forgotten from then on
) strict, without rowid;

create index marks_expires on marks (expires);
