-- What directories have said of recipients, so that they can be away. Times are milliseconds since 1970 by the clock of the database.
create table recipients (
    address text collate "C" primary key, -- in lower case, without extension, alias domain replaced
    checked bigint not null,              -- when it was last found, or found missing
    expires bigint not null               -- known until then; not later than checked: it is not known any more
);

create index recipients_checked on recipients (checked);
create index recipients_expires on recipients (expires);

-- Full copies of directories, replaced as a whole.
create table recipient_copies (
    directory text collate "C" primary key, -- name in the configuration, and digest of its settings
    version   bigint not null,              -- counts replacements; 0: none yet
    pulled    bigint not null,              -- when it was taken; 0: never
    entries   bigint not null,
    members   bytea not null,               -- eight bytes per address, sorted: the beginning of its SHA-256
    lease     bigint not null               -- a host takes a new one until then
);
