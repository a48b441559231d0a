// SPDX-License-Identifier: GPL-3.0-or-later
//! The program `policyd` from outside: flags, exit statuses of sysexits(3), what `check` and `test` print.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const REQUEST: &str = "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\nclient_name=unknown\n\
    sender=a@example.net\nrecipient=r@example.org\ninstance=1.2\n";

struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs policyd in an empty environment of Octroi's.
fn run(arguments: &[&str], input: &str) -> Ran {
    run_in(arguments, input, &[])
}

fn run_in(arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_policyd"));
    command.args(arguments).envs(environment.iter().copied()).env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder with a configuration on a SQLite store of its own.
struct Set {
    folder: tempfile::TempDir,
}

impl Set {
    fn new(configuration: &str) -> Set {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("octroi.db");
        let text = format!("[store]\nurl = \"sqlite:{}\"\n{configuration}", store.display());
        std::fs::write(folder.path().join("octroi.toml"), text).unwrap();
        Set { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
        self.path("octroi.toml").display().to_string()
    }
}

#[test]
fn help_and_version_are_no_errors_and_nonsense_is() {
    for arguments in [&["--help"][..], &["--version"], &["check", "--help"], &["help"]] {
        let ran = run(arguments, "");
        assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(ran.out.contains("policyd"));
    }
    for arguments in [&["--nonsense"][..], &["nonsense"], &["check", "extra"], &["--config"]] {
        let ran = run(arguments, "");
        assert_eq!((ran.status, ran.out.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(ran.err.starts_with("error: "), "{}", ran.err);
    }
}

#[test]
fn check_names_file_line_and_key_of_every_mistake() {
    let set = Set::new(
        "[policyd]\nlisten = [\"nowhere\"]\nbudgets = \"1s\"\n[greylist]\ndelay = 5\nmode = \"sometimes\"\n[greylits]\n",
    );
    for arguments in
        [&["check", "--config", &set.config()][..], &["--config", &set.config()], &["--config", &set.config(), "test"]]
    {
        let ran = run(arguments, "");
        assert_eq!(ran.status, Some(78), "{}", ran.err);
        // A section that does not exist stops the reading before the sections are read.
        assert!(ran.err.contains(&format!("policyd: {}:9: greylits: ", set.config())), "{}", ran.err);
    }
    let set =
        Set::new("[policyd]\nlisten = [\"nowhere\"]\nbudgets = \"1s\"\n[greylist]\ndelay = 5\nmode = \"sometimes\"\n");
    let ran = run(&["check", "--config", &set.config()], "");
    assert_eq!(ran.status, Some(78));
    for (line, key) in [(4, "policyd.listen"), (5, "policyd.budgets"), (7, "greylist.delay"), (8, "greylist.mode")] {
        assert!(ran.err.contains(&format!("policyd: {}:{line}: {key}: ", set.config())), "{line} {key}: {}", ran.err);
    }
    assert_eq!(ran.err.lines().count(), 4, "{}", ran.err);
}

#[test]
fn check_names_the_line_of_a_wrong_list_entry_and_of_a_wrong_variable() {
    let set = Set::new("");
    let list = set.path("clients");
    std::fs::write(&list, "192.0.2.1\n\nuser@example.org\n").unwrap();
    let text = format!("[access]\nclient_whitelist = [\"{}\"]\n", list.display());
    std::fs::write(set.path("octroi.toml"), text).unwrap();
    let ran = run(&["check", "--config", &set.config()], "");
    assert_eq!(ran.status, Some(78));
    assert!(ran.err.contains(&format!("policyd: {}:3: ", list.display())), "{}", ran.err);

    let set = Set::new("");
    let wrong = [("OCTROI__GREYLIST__DELAY", "4")];
    let ran = run_in(&["check", "--config", &set.config()], "", &wrong);
    assert_eq!(ran.status, Some(78));
    assert!(ran.err.contains("environment OCTROI__GREYLIST__DELAY: greylist.delay: "), "{}", ran.err);
}

#[test]
fn check_of_a_good_configuration_is_silent_about_mistakes() {
    let set = Set::new("[greylist]\nmode = \"strict\"\n");
    let ran = run(&["check", "--config", &set.config()], "");
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    assert_eq!(ran.out, "configuration: good; 0 list entries\n");
    assert!(!set.path("octroi.db").exists(), "check opens no store");
    let missing = run(&["check", "--config", "/no/such/octroi.toml"], "");
    assert_eq!(missing.status, Some(78));
    assert!(missing.err.contains("/no/such/octroi.toml"), "{}", missing.err);
}

#[test]
fn test_prints_the_trace_and_changes_nothing() {
    let set = Set::new("[greylist]\nmode = \"strict\"\n");
    let two = format!("{REQUEST}\n{REQUEST}\n");
    let ran = run(&["test", "--config", &set.config()], &two);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("store: an empty store") && lines[0].contains("does not exist yet"), "{}", ran.out);
    assert_eq!(lines[1], "request 1: RCPT client=192.0.2.1 sender=<a@example.net> recipient=<r@example.org>");
    assert_eq!(lines[2], "  access: nothing to say");
    let greylist: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("  greylist: ")).collect();
    let found = ["  greylist: defer_if_permit (greylist_new)", "  greylist: defer_if_permit (greylist_early)"];
    assert_eq!(greylist, found, "the second request meets the first");
    let actions = lines.iter().filter(|line| line.starts_with("  action="));
    let waits = "  action=DEFER_IF_PERMIT 4.7.1 Greylisted, try again in 4 minutes; id ";
    assert!(actions.into_iter().all(|line| line.starts_with(waits)), "{}", ran.out);
    let left: Vec<_> = std::fs::read_dir(set.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["octroi.toml"], "no store came into being");
}

#[test]
fn test_reads_the_real_store_and_leaves_it_alone() {
    let set = Set::new("[greylist]\nmode = \"strict\"\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let settings = common::store::StoreSettings {
        url: format!("sqlite:{}", set.path("octroi.db").display()),
        ..common::store::StoreSettings::default()
    };
    let times = policyd::store::greylist::Times { delay: 1000, retry_window: 10_000, keep_passed: 1_000_000_000 };
    let triplet = policyd::triplet::Triplet::new([192, 0, 2, 1].into(), "a@example.net", "r@example.org", 24, 64);
    runtime.block_on(async {
        let store = common::store::Store::open(&settings).await.unwrap();
        store.migrate().await.unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
        for at in [now - 5000, now] {
            policyd::store::greylist::ask(&store, &triplet, times, Some(at)).await.unwrap();
        }
        store.close().await;
    });
    let before = std::fs::read(set.path("octroi.db")).unwrap();
    let file = set.path("requests");
    let other = REQUEST.replace("a@example.net", "b@example.net");
    std::fs::write(&file, format!("{REQUEST}\n{other}")).unwrap();
    let ran = run(&["test", "--config", &set.config(), &file.display().to_string()], "");
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert!(ran.out.starts_with("store: a copy of the sqlite store, which is only read\n"), "{}", ran.out);
    assert!(ran.out.contains("  greylist: dunno (greylist_passed)\n"), "{}", ran.out);
    assert!(ran.out.contains("  action=DUNNO\n"), "{}", ran.out);
    assert!(ran.out.contains("  greylist: defer_if_permit (greylist_new)\n"), "{}", ran.out);
    assert_eq!(std::fs::read(set.path("octroi.db")).unwrap(), before, "not a byte has changed");
}

#[test]
fn test_knows_lists_replies_and_trapped_networks() {
    let set = Set::new("[greylist]\nmode = \"strict\"\ntrap_never = 9\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = format!("sqlite:{}", set.path("octroi.db").display());
    runtime.block_on(async {
        let settings = common::store::StoreSettings { url, ..common::store::StoreSettings::default() };
        let store = common::store::Store::open(&settings).await.unwrap();
        store.migrate().await.unwrap();
        let common::store::Store::Sqlite(pool) = &store else { panic!("not SQLite") };
        for text in [
            "insert into marks values ('trap 192.0.2.0/24', 'a test', 9000000000000)",
            "insert into marks values ('reply r@example.org b@example.net', '', 9000000000000)",
            "insert into acl (list, entry) values ('sender_blacklist', 'c@example.net')",
            "insert into acl (list, entry, expires) values ('sender_blacklist', 'd@example.net', 5)",
        ] {
            sqlx::query(text).execute(pool).await.unwrap();
        }
        store.close().await;
    });
    let file = set.path("requests");
    let requests = ["a", "b", "c", "d"].map(|name| REQUEST.replace("a@example.net", &format!("{name}@example.net")));
    std::fs::write(&file, requests.join("\n")).unwrap();
    let ran = run(&["test", "--config", &set.config(), &file.display().to_string()], "");
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    let reasons: Vec<&str> = ["(trapped)", "(reply)", "(sender_blacklisted)"].to_vec();
    assert!(reasons.iter().all(|reason| ran.out.contains(reason)), "{}", ran.out);
    assert_eq!(ran.out.matches("(trapped)").count(), 2, "the last entry has expired: {}", ran.out);
}

#[test]
fn test_names_the_request_that_cannot_be_read() {
    let set = Set::new("");
    for (input, told) in [
        (format!("{REQUEST}\nno equals sign\n"), "request 2: line without"),
        ("sender=a\n".to_owned(), "request 1: no attribute"),
        (format!("{REQUEST}sender=\0\n"), "request 1: NUL"),
    ] {
        let ran = run(&["test", "--config", &set.config(), "-"], &input);
        assert_eq!(ran.status, Some(65), "{}", ran.err);
        assert!(ran.err.contains(told), "{}", ran.err);
    }
    assert_eq!(run(&["test", "--config", &set.config()], "").status, Some(0), "no request at all");
    assert_eq!(run(&["test", "--config", &set.config(), "/no/such/file"], "").status, Some(65));
}

#[test]
fn test_says_when_the_store_cannot_be_reached() {
    let set = Set::new("");
    std::fs::write(set.path("octroi.toml"), "[store]\nurl = \"postgres://octroi@127.0.0.1:1/octroi\"\n").unwrap();
    let ran = run(&["test", "--config", &set.config()], REQUEST);
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert!(
        ran.out.starts_with("store: an empty store in memory of this command (the store is not available: "),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("greylist_new"), "{}", ran.out);
}

#[test]
fn a_store_that_cannot_be_made_ends_the_start_with_its_path() {
    let set = Set::new("");
    std::fs::write(set.path("octroi.toml"), "[store]\nurl = \"sqlite:/no/such/folder/octroi.db\"\n").unwrap();
    let ran = run(&["--config", &set.config()], "");
    assert_eq!(ran.status, Some(69));
    assert!(ran.err.contains("/no/such/folder/octroi.db"), "{}", ran.err);
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_its_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let set = Set::new(&format!("[policyd]\nlisten = [\"{address}\"]\nhttp = \"\"\n"));
    let ran = run(&["--config", &set.config()], "");
    assert_eq!(ran.status, Some(69));
    assert!(ran.err.contains(&format!("policyd: cannot listen on {address}: ")), "{}", ran.err);
}

/// Ends the process whatever happens to the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sockets_passed_by_systemd_are_served_instead_of_configured_ones() {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    // The configured address is taken: whoever tries to bind it fails.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let set = Set::new(&format!("[policyd]\nlisten = [\"{listen}\"]\nhttp = \"\"\n[greylist]\nmode = \"off\"\n"));
    let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = passed.local_addr().unwrap();
    // sd_listen_fds(3): descriptor 3, and the process id that it is meant for.
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --config \"$1\" 3<&0";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_policyd"), &set.config()]);
    command.stdin(Stdio::from(OwnedFd::from(passed))).stderr(Stdio::null());
    let _daemon = Killed(command.spawn().unwrap());
    // The socket listens already; the request waits until the daemon is there.
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    client.write_all(format!("{REQUEST}\n").as_bytes()).unwrap();
    let mut reply = [0; 14];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"action=DUNNO\n\n");
}

/// A folder with a program `postconf` that prints what is given.
fn fake_postfix(main: &str, master: &str) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "#!/bin/sh\ncase $1 in\n-nx) cat <<'END'\n{main}\nEND\n;;\n-Px) cat <<'END'\n{master}\nEND\n;;\n-Mx) ;;\n*) exit 1;;\nesac\n"
    );
    let path = folder.path().join("postconf");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn check_of_the_wiring_says_who_asks_and_what_is_missing() {
    let set = Set::new("");
    let check = |main: &str, master: &str| {
        let postfix = fake_postfix(main, master);
        let path = format!("{}:{}", postfix.path().display(), std::env::var("PATH").unwrap());
        run_in(&["check", "--postfix", "--config", &set.config()], "", &[("PATH", &path)])
    };
    let wired = check("smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10023", "");
    assert_eq!(wired.status, Some(0), "{}", wired.err);
    assert!(wired.out.contains("postfix: asked by smtpd_recipient_restrictions\n"), "{}", wired.out);
    assert!(wired.out.contains("no timeout") && wired.out.contains("no default_action"), "{}", wired.out);

    let not = check("smtpd_recipient_restrictions = permit", "smtp/inet/smtpd_client_restrictions = permit");
    assert_eq!(not.status, Some(78));
    assert!(not.err.contains("postfix: no check_policy_service points at 127.0.0.1:10023"), "{}", not.err);
}

const RULES: &str = "[[rule]]\nname = \"never\"\nwhen = \"size > '1GB'\"\nthen = [\"stop\"]\n\
    [[rule]]\nname = \"watched\"\nthen = [\"reject 5.7.1 no\"]\nshadow = true\n\
    [[rule]]\nname = \"points\"\nwhen = \"client_address == '192.0.2.0/24'\"\nthen = [\"score +2\", \"tag seen\"]\n\
    [[rule]]\nname = \"final\"\nwhen = \"tagged('seen') && sender.matches(r'^a@')\"\nthen = [\"reject 5.7.1 {sender} is not wanted; id {id}\"]\n";

#[test]
fn test_shows_which_rules_match() {
    let set = Set::new(RULES);
    let config = set.config();
    let ran = run(&["test", "--config", &config], REQUEST);
    assert_eq!((ran.status, ran.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = ran.out.lines().map(str::trim).collect();
    let wanted = [
        "rule watched (shadow): would do: reject",
        "rule points: matches: score, tag",
        "rule final: matches: reject",
        "rules: reject (rule_rejected): rule final",
    ];
    let at = lines.iter().position(|line| *line == wanted[0]).unwrap_or_else(|| panic!("{}", ran.out));
    assert_eq!(lines[at..at + wanted.len()], wanted, "{}", ran.out);
    assert!(ran.out.contains("action=REJECT 5.7.1 a@example.net is not wanted; id "), "{}", ran.out);
    assert!(!ran.out.contains("never"));
    let all = run(&["test", "--all-rules", "--config", &config], REQUEST);
    assert!(all.out.contains("  rule never: does not match\n"), "{}", all.out);
}

#[test]
fn check_tells_every_mistake_of_the_rules() {
    let set = Set::new(
        "[[rule]]\nname = \"one\"\nwhen = \"sendr == 'x'\"\nthen = [\"jump\"]\n[greylist]\ndelay = \"0s\"\n\
         [[rule]]\nname = \"two\"\nwhen = \"size >\"\nthen = [\"reject no\"]\nshado = true\n",
    );
    let ran = run(&["check", "--config", &set.config()], "");
    assert_eq!(ran.status, Some(78));
    for told in [
        ":5: rule.when: rule \"one\": character 1, at \"sendr == 'x'\": there is no attribute \"sendr\"; did you mean \"sender\"?",
        ":6: rule.then: rule \"one\": \"jump\": there is no action \"jump\"",
        ":8: greylist.delay: ",
        ":13: rule.shado: ",
    ] {
        assert!(ran.err.contains(told), "{told} missing in\n{}", ran.err);
    }
    let good = Set::new(RULES);
    let ran = run(&["check", "--config", &good.config()], "");
    assert_eq!(ran.status, Some(0), "{}", ran.err);
    assert!(ran.out.contains("rules: 4, of these shadows: 1"), "{}", ran.out);
}
