//! Merges native and Python frames into one stack.
//!
//! A recording holds both: every native frame, and behind each native frame that runs Python's
//! bytecode, the Python frames that it runs. The interpreter's own frames only repeat what the
//! Python frames tell a reader more clearly, so `kept` leaves them out. The interpreter's frames at
//! the leaf stay, because what the interpreter did there tells what kind of object took the memory.
//! Where an extension is at the leaf, the extension tells that.

/// What part a frame plays in a merged stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A Python function.
    Python,
    /// Code of the interpreter itself.
    Interpreter,
    /// Code that starts a program or a thread.
    StartUp,
    /// Any other native code: an extension, or a program that embeds Python.
    Native,
}

/// The languages whose frames a reader wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Languages {
    /// Python frames and native frames as one stack.
    #[default]
    Both,
    /// All native frames, including the interpreter's own.
    Native,
    /// Python frames only.
    Python,
}

/// Tells for each frame of a stack, leaf first, whether a reader wants to see the frame.
pub(super) fn kept(roles: &[Role], languages: Languages) -> Vec<bool> {
    let keep = |role: &Role| (*role == Role::Python) == (languages == Languages::Python);
    match languages {
        Languages::Both => merged(roles),
        Languages::Native | Languages::Python => roles.iter().map(keep).collect(),
    }
}

fn merged(roles: &[Role]) -> Vec<bool> {
    let is_python = |role: &Role| *role == Role::Python;
    let (Some(first), Some(last)) = (
        roles.iter().position(is_python),
        roles.iter().rposition(is_python),
    ) else {
        return vec![true; roles.len()];
    };
    let is_foreign = |role: &Role| matches!(role, Role::Python | Role::Native);
    let leaf = roles.iter().position(is_foreign).unwrap_or(first);
    let starts_up = roles[last + 1..]
        .iter()
        .all(|role| matches!(role, Role::Interpreter | Role::StartUp));
    let keep = |(index, role): (usize, &Role)| match role {
        Role::Python => true,
        // The last of these frames is the function that evaluates bytecode.
        Role::Interpreter => index < leaf && index + 1 < first,
        Role::StartUp | Role::Native => index <= last || !starts_up,
    };
    roles.iter().enumerate().map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        Role::{Interpreter, Native, Python, StartUp},
        *,
    };

    fn merged(roles: &[Role]) -> Vec<Role> {
        seen(roles, Languages::Both)
    }

    fn seen(roles: &[Role], languages: Languages) -> Vec<Role> {
        let kept = kept(roles, languages);
        let pairs = roles.iter().zip(kept);
        pairs
            .filter_map(|(role, kept)| kept.then_some(*role))
            .collect()
    }

    #[test]
    fn the_interpreter_is_seen_at_the_leaf_alone() {
        let roles = [
            Interpreter,
            Interpreter,
            Python,
            Python,
            Interpreter,
            Interpreter,
            Python,
            Interpreter,
            StartUp,
            StartUp,
        ];
        assert_eq!(merged(&roles), [Interpreter, Python, Python, Python]);
    }

    #[test]
    fn extensions_stay_where_they_belong() {
        let roles = [
            Native,
            Interpreter,
            Python,
            Interpreter,
            Native,
            Interpreter,
            Python,
        ];
        assert_eq!(merged(&roles), [Native, Python, Native, Python]);
    }

    #[test]
    fn an_extension_is_called_by_python_and_not_by_the_interpreter() {
        let roles = [
            Interpreter,
            Native,
            Interpreter,
            Interpreter,
            Python,
            StartUp,
        ];
        assert_eq!(merged(&roles), [Interpreter, Native, Python]);
    }

    #[test]
    fn a_program_that_embeds_python_is_seen() {
        let roles = [Interpreter, Python, Interpreter, Native, StartUp];
        assert_eq!(merged(&roles), [Python, Native, StartUp]);
    }

    #[test]
    fn one_language_alone_has_all_of_its_frames_and_no_others() {
        let roles = [Native, Interpreter, Python, Interpreter, Python, StartUp];
        assert_eq!(
            seen(&roles, Languages::Native),
            [Native, Interpreter, Interpreter, StartUp]
        );
        assert_eq!(seen(&roles, Languages::Python), [Python, Python]);
        assert_eq!(seen(&[Native, StartUp], Languages::Python), []);
    }

    #[test]
    fn a_stack_without_python_is_left_as_it_is() {
        let roles = [Interpreter, Native, StartUp];
        assert_eq!(merged(&roles), roles);
    }
}
