// SPDX-License-Identifier: GPL-3.0-or-later
//! Where a client is: country and autonomous system by MaxMind DB files that the administrator gives (GeoLite2, DB-IP, IPinfo ...), read whole when
//! the configuration is read. A file that changes is read again at a reload.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use common::config::{Mistake, Mistakes};
use maxminddb::{PathElement, Reader};

use super::perimeter::Sign;
use crate::around::Around;
use crate::config::GeoSettings;
use crate::request::PolicyRequest;
use crate::verdict::Reason;

/// What stands for a country that is not known.
const UNKNOWN: &str = "??";

/// The files, as far as there are any.
#[derive(Default)]
pub struct GeoDb {
    countries: Option<Reader<Vec<u8>>>,
    asns: Option<Reader<Vec<u8>>>,
}

impl fmt::Debug for GeoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |reader: &Option<Reader<Vec<u8>>>| reader.as_ref().map(|db| db.metadata().database_type.clone());
        f.debug_struct("GeoDb").field("countries", &kind(&self.countries)).field("asns", &kind(&self.asns)).finish()
    }
}

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// ISO 3166-1, two letters; none when it is not known.
    pub country: Option<String>,
    /// Number of the autonomous system.
    pub asn: Option<u32>,
    /// Whose that is.
    pub organisation: Option<String>,
}

impl GeoDb {
    /// Reads the files that the settings name.
    pub fn load(settings: &GeoSettings) -> Result<Self, Mistakes> {
        let mut mistakes = Mistakes::new();
        let mut open = |file: &Path, key: &str| {
            if file.as_os_str().is_empty() {
                return None;
            }
            let opened = Reader::open_readfile(file);
            opened.map_err(|error| mistakes.push(mistake(file, key, &error.to_string()))).ok()
        };
        let countries = open(&settings.country_db, "perimeter.geo.country_db");
        let asns = open(&settings.asn_db, "perimeter.geo.asn_db");
        mistakes.into_result(Self { countries, asns })
    }

    /// Where an address is, as far as the files know.
    pub fn place(&self, ip: IpAddr) -> Place {
        let country = |path: &[PathElement<'_>]| text(self.countries.as_ref(), ip, path);
        let number = || -> Option<u32> {
            let found = self.asns.as_ref()?.lookup(ip).ok()?;
            found.decode_path(&[PathElement::Key("autonomous_system_number")]).ok()?
        };
        let iso = [["country", "iso_code"], ["registered_country", "iso_code"]].map(|path| path.map(PathElement::Key));
        Place {
            country: country(&iso[0]).or_else(|| country(&iso[1])),
            asn: number(),
            organisation: text(self.asns.as_ref(), ip, &[PathElement::Key("autonomous_system_organization")]),
        }
    }
}

fn mistake(file: &Path, key: &str, message: &str) -> Mistake {
    Mistake { origin: file.display().to_string(), key: key.to_owned(), message: message.to_owned() }
}

/// A damaged record is as good as none.
fn text(reader: Option<&Reader<Vec<u8>>>, ip: IpAddr, path: &[PathElement<'_>]) -> Option<String> {
    reader?.lookup(ip).ok()?.decode_path::<String>(path).ok()?
}

/// Where the client of a request is; nothing known without files.
pub fn place(around: Around<'_>, request: &PolicyRequest<'_>) -> Place {
    request.client_address.map(|ip| around.policy.perimeter.geo.place(ip)).unwrap_or_default()
}

/// The signs in where a client is, as far as they lead to something.
pub fn signs(settings: &GeoSettings, db: &GeoDb, request: &PolicyRequest<'_>) -> Vec<Sign> {
    let Some(ip) = request.client_address.filter(|_| !settings.countries.is_empty() || !settings.asns.is_empty())
    else {
        return Vec::new();
    };
    let place = db.place(ip);
    let country = place.country.as_deref().unwrap_or(UNKNOWN);
    let by_country = settings.countries.get(country).and_then(|effect| {
        Sign::new(*effect, Reason::GeoRefused, "7.1", format!("country {country}"), format!("it is in {country}"))
    });
    let by_asn = place.asn.and_then(|asn| {
        let effect = settings.asns.get(&asn.to_string())?;
        let whose = place.organisation.as_deref().unwrap_or("unknown");
        Sign::new(*effect, Reason::GeoRefused, "7.1", format!("AS{asn} ({whose})"), format!("it is in AS{asn}"))
    });
    by_country.into_iter().chain(by_asn).collect()
}
