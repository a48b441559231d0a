-- What is remembered for a while: to whom we wrote, whose replies are not greylisted, and networks that wrote to a trap. Written in
-- batches a moment later, lost in a crash without harm. Times are milliseconds since 1970 by the clock of the database.
create table marks (
    key     text collate "C" primary key, -- 'reply ann@our.example joe@their.example', 'trap 192.0.2.0/24'
    fact    text not null,                -- what led to it
    expires bigint not null               -- forgotten from then on
);

create index marks_expires on marks (expires);
