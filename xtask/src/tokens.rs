//! What the tokens of a file say that its syntax tree does not: macro calls are opaque to the latter.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Something in the tokens that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The keyword `unsafe`.
    Unsafe,
    /// `.unwrap()`.
    Unwrap,
    /// `#[ignore]` without a reason.
    IgnoreWithoutReason,
    /// `todo!`.
    Todo,
    /// `unimplemented!`.
    Unimplemented,
    /// `dbg!`.
    Dbg,
}

/// Everything of a [`Kind`] in the tokens, with its line (from 1), in the order of the text.
pub fn scan(tokens: &TokenStream) -> Vec<(Kind, usize)> {
    let mut found = Vec::new();
    walk(tokens, &mut found);
    found
}

fn walk(tokens: &TokenStream, found: &mut Vec<(Kind, usize)>) {
    let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let next = |offset: usize| tokens.get(index + offset);
        let line = token.span().start().line;
        let kind = match token {
            TokenTree::Ident(ident) if ident == "unsafe" => Some(Kind::Unsafe),
            TokenTree::Ident(ident) if is_punct(next(1), '!') => match ident.to_string().as_str() {
                "todo" => Some(Kind::Todo),
                "unimplemented" => Some(Kind::Unimplemented),
                "dbg" => Some(Kind::Dbg),
                _ => None,
            },
            TokenTree::Punct(dot)
                if dot.as_char() == '.' && is_ident(next(1), "unwrap") && is_empty_call(next(2)) =>
            {
                found.push((Kind::Unwrap, next(1).map_or(line, |token| token.span().start().line)));
                None
            }
            TokenTree::Punct(hash) if hash.as_char() == '#' && is_bare_ignore(next(1)) => {
                Some(Kind::IgnoreWithoutReason)
            }
            _ => None,
        };
        found.extend(kind.map(|kind| (kind, line)));
        if let TokenTree::Group(group) = token {
            walk(&group.stream(), found);
        }
    }
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn is_ident(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == name)
}

fn is_empty_call(token: Option<&TokenTree>) -> bool {
    let is_call =
        |group: &proc_macro2::Group| group.delimiter() == Delimiter::Parenthesis && group.stream().is_empty();
    matches!(token, Some(TokenTree::Group(group)) if is_call(group))
}

fn is_bare_ignore(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else { return false };
    let inner: Vec<_> = group.stream().into_iter().collect();
    group.delimiter() == Delimiter::Bracket && inner.len() == 1 && is_ident(inner.first(), "ignore")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_inside_macros_are_seen_and_comments_and_strings_are_not() {
        let text = "// todo!() unsafe .unwrap()\nfn f() {\n    let unwrap = \"x.unwrap()\";\n    assert!(x\n        .unwrap());\n\
                    \x20   x.unwrap_or(1);\n    todo!();\n    unsafe {}\n}\n#[ignore]\n#[ignore = \"needs KVM\"]\nfn g() { dbg!(1); }\n";
        let found = scan(&text.parse().unwrap());
        let expected = [
            (Kind::Unwrap, 5),
            (Kind::Todo, 7),
            (Kind::Unsafe, 8),
            (Kind::IgnoreWithoutReason, 10),
            (Kind::Dbg, 12),
        ];
        assert_eq!(found, expected);
    }
}
