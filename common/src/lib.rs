// SPDX-License-Identifier: GPL-3.0-or-later
//! What both daemons and the administrator's command share: configuration layers, service skeleton, store
//! pool and migrations, list files, log and metrics. No mail decisions are made here.

pub mod address;
pub mod config;
pub mod dns;
pub mod exit;
pub mod handover;
pub mod http;
pub mod lookup;
pub mod mail;
pub mod metrics;
pub mod net;
pub mod orders;
pub mod postconf;
pub mod record;
pub mod service;
pub mod spf;
pub mod store;
pub mod units;
