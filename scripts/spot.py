"""pgspot over FILE...: as the command of that name, which stops at three things that PostgreSQL and the extension allow.

Each is told to it here rather than avoided in the SQL; scripts/security.sh seeds a fault behind each and sees it found.
"""

import functools
import re

from pglast import ast, parse_plpgsql, parse_sql
from pgspot import cli, visitors
from pgspot.formatters import format_function


class SQLVisitor(visitors.SQLVisitor):
    """A body that is an expression (RETURN …) is bound when the function is made, under the search_path of the script."""

    def visit_CreateFunctionStmt(self, ancestors, node):
        if node.sql_body is not None:
            # What the body names is visited as a part of this statement; there is no text to look into, and no path to pin.
            self.state.args.proc_without_search_path.append(format_function(node))
            node.options = (*node.options, ast.DefElem(defname="as", arg=(ast.String(sval=""),)))
        super().visit_CreateFunctionStmt(ancestors, node)


@functools.cache
def statements(script):
    """Where each begins, and its text: as pglast prints it, a parameter named "position" would lose its quotes."""
    return {parsed.stmt_location: script[parsed.stmt_location :][: parsed.stmt_len or None] for parsed in parse_sql(script)}


def visit_plpgsql(state, node):
    """The parser has no catalog: it takes a table's type for one without fields, and a scalar type for one with fields."""
    script = state.counter.sql
    text = statements(script)[state.counter.stmt_location]
    rows = re.findall(r"^CREATE (?:TABLE|VIEW|TYPE(?= [\w.]+ AS \()) ([\w.]+)", script, re.MULTILINE)
    scalars = re.findall(r"^CREATE TYPE ([\w.]+)(?: AS ENUM|;)", script, re.MULTILINE)
    for names, known, declared in ((rows, "record", r"(^\s+\w+ (?:CONSTANT )?)(?:%s)(?= :=|;)"), (scalars, "text", r"(\bOUT \w+ )(?:%s)\b")):
        text = re.sub(declared % "|".join(map(re.escape, names)), rf"\1{known}", text, flags=re.MULTILINE)
    visitor = visitors.PLPGSQLVisitor(state)
    for item in parse_plpgsql(text):
        visitor(item)


visitors.SQLVisitor = SQLVisitor
visitors.visit_plpgsql = visit_plpgsql
cli.run()
