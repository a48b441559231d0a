// SPDX-License-Identifier: GPL-3.0-or-later
//! policyd as Postfix meets it: started in this process on a free port (or as the real program where a process is the point), asked
//! over its socket, on SQLite and on a PostgreSQL of our own.

mod contract;
mod daemon;
mod dialogs;
mod farm;
mod faults;
mod gate;
mod memory;
mod wire;
