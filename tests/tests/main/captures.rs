//! Whoever may write beside a capture can neither have residue delete a file nor spoil a recording.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use residue_tests::{
    fixtures::Fixture,
    machine::{self, Needed, PATIENCE, wait_until},
    recorder::{REFUSED, Recorder, report},
    target::Target,
};

const SETPRIV: Needed = Needed {
    program: "setpriv",
    package: "util-linux",
};

const ROOT: u32 = 0;
/// A user without privileges, on every Linux.
const NOBODY: u32 = 65534;

/// Puts the file `$2` at `$1`, in place of whatever is there, again and again.
const PLANT: &str = "while :; do rm -f \"$1\"; cp \"$2\" \"$1\"; sleep 0.02; done";

/// A user without privileges who plants journals. Gone when dropped.
struct Planter(Child);

impl Planter {
    fn start(journal: &Path, trap: &Path) -> Result<Self> {
        let child = Command::new("setpriv")
            .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
            .arg("--clear-groups")
            .args(["sh", "-c", PLANT, "plant"])
            .args([journal, trap])
            .spawn()
            .context("failed to start setpriv")?;
        Ok(Self(child))
    }
}

impl Drop for Planter {
    fn drop(&mut self) {
        // Fails only when it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A journal that has SQLite delete `victim` once it is undone: the header of a segment without records,
/// and a super-journal's name
/// (<https://www.sqlite.org/fileformat.html#the_rollback_journal>).
fn trap(victim: &Path) -> Vec<u8> {
    const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    const PAGES: u32 = 100;
    const SECTOR_BYTES: u32 = 512;
    const PAGE_BYTES: u32 = 4096;
    let name = victim.as_os_str().as_encoded_bytes();
    let mut journal = MAGIC.to_vec();
    for number in [0, 0x1234, PAGES, SECTOR_BYTES, PAGE_BYTES] {
        journal.extend(number.to_be_bytes());
    }
    journal.resize(SECTOR_BYTES as usize, 0);
    // The number of the page with SQLite's locks.
    journal.extend((0x4000_0000 / PAGE_BYTES + 1).to_be_bytes());
    journal.extend(name);
    journal.extend((name.len() as u32).to_be_bytes());
    let sum: u32 = name.iter().map(|it| u32::from(*it)).sum();
    journal.extend(sum.to_be_bytes());
    journal.extend(MAGIC);
    journal
}

fn journal_of(capture: &Path) -> PathBuf {
    let mut name = capture.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

#[test]
fn a_stranger_who_plants_journals_deletes_nothing_and_spoils_nothing() -> Result<()> {
    let _turn = machine::beside_others();
    if !machine::has(SETPRIV) {
        return Ok(());
    }
    let secrets = tempfile::tempdir()?;
    let victim = secrets.path().join("victim");
    fs::write(&victim, "what root needs")?;
    let for_everyone = tempfile::tempdir()?;
    fs::set_permissions(for_everyone.path(), fs::Permissions::from_mode(0o755))?;
    let trap_file = for_everyone.path().join("trap");
    fs::write(&trap_file, trap(&victim))?;

    // Writable by everyone, and not sticky: whoever likes may replace root's files in it.
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    let mut target = Target::start(&Fixture::Churn.build()?, &["2", "2000", "10"])?;
    let recorder = Recorder::start_in(directory, &[target.pid()], &["--interval", "100ms"])?;
    let journal = journal_of(&recorder.capture());
    let planter = Planter::start(&journal, &trap_file)?;
    let is_planted = || fs::read(&journal).is_ok_and(|it| it == trap(&victim));
    ensure!(wait_until(PATIENCE, is_planted), "nothing was planted");
    target.ask("fill", "filled")?;
    let truth = target.ask_truth()?;
    thread::sleep(Duration::from_millis(1500));
    let recording = recorder.stop()?;
    drop(planter);
    ensure!(victim.exists(), "root's file was deleted by the recorder");

    // What a stranger left is no part of the capture, nor is what names a file, whoever left it.
    fs::write(&journal, trap(&victim))?;
    for (owner, why) in [(NOBODY, "not by the owner"), (ROOT, "names another file")] {
        chown(&journal, Some(owner), Some(owner))?;
        let refused = report(&recording.capture(), "json")?;
        assert_eq!(refused.status.code(), Some(REFUSED));
        let said = String::from_utf8(refused.stderr)?;
        assert!(said.contains(why) && said.contains("remove"), "{said}");
        ensure!(victim.exists(), "root's file was deleted by the report");
    }
    fs::remove_file(&journal)?;
    let report = recording.report()?;
    assert_eq!(report.outstanding_bytes(), truth.bytes());
    assert_eq!(report.outstanding_objects(), truth.objects());
    ensure!(target.finish()?.success(), "the target did not exit well");
    Ok(())
}
