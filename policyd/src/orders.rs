// SPDX-License-Identifier: GPL-3.0-or-later
//! Orders: what becomes of a message beyond "may go on" or "refused". Checks put them into `Course::orders`;
//! contentd carries them out (`common::handover`), because Postfix does not behind a proxy filter.

pub use common::orders::{Order, OrderAddress, OrderError};
