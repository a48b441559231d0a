-- What directories have said of recipients, so that they can be away. The columns are those of the PostgreSQL schema.
create table recipients (
    address text primary key not null, -- in lower case, without extension, alias domain replaced
    checked integer not null,          -- when it was last found, or found missing
    expires integer not null           -- known until then; not later than checked: it is not known any more
) strict, without rowid;

create index recipients_checked on recipients (checked);
create index recipients_expires on recipients (expires);

-- Full copies of directories, replaced as a whole.
create table recipient_copies (
    directory text primary key not null, -- name in the configuration, and digest of its settings
    version   integer not null,          -- counts replacements; 0: none yet
    pulled    integer not null,          -- when it was taken; 0: never
    entries   integer not null,
    members   blob not null,             -- eight bytes per address, sorted: the beginning of its SHA-256
    lease     integer not null           -- a host takes a new one until then
) strict;
