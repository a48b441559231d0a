// SPDX-License-Identifier: GPL-3.0-or-later
//! policyd as Postfix meets it: started in this process on a free port (or as the real program where a process is the point), asked
//! over its socket, on SQLite and on a PostgreSQL of our own.

mod alone;
mod contract;
mod daemon;
mod decisions;
mod dialogs;
mod exact;
mod explain;
mod farm;
mod faults;
mod frame;
mod gate;
mod limits;
mod limits_contract;
mod limits_exact;
mod limits_outage;
mod lists;
mod marks;
mod memory;
mod networks;
mod optlists;
mod outage;
mod perimeter;
mod perimeter_signs;
mod pool;
mod recipients;
mod recipients_callahead;
mod rule_facts;
mod rules;
mod shield;
mod trust;
mod wire;
