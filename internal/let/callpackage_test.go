package let

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

const password = "correct horse battery staple"

// secretCall is a call with a secret input, and how it gets its value.
func secretCall(t *testing.T, typ, from, text string, outputs ...berth.Parameter) (*agent.Order, given) {
	t.Helper()
	fn := berth.Function{Name: "f", Args: []string{"-c", text}, Inputs: []berth.Parameter{{Name: "password", Type: typ, Secret: true}}, Outputs: outputs}
	order := &agent.Order{Call: &agent.Call{Function: "f", Secrets: map[string]string{"password": from}}}
	return order, inPackage(t, berth.Package{Functions: []berth.Function{fn}})
}

func TestASecretReachesTheProgramAndIsTakenFromWhereItWas(t *testing.T) {
	t.Parallel()
	file := write(t, filepath.Join(t.TempDir(), "secret"), password, 0o600)
	for from, text := range map[string]string{
		"env:BERTH_SECRET_0": `test "$PASSWORD" = "$EXPECTED" && grep -qF "$EXPECTED" $BERTH_INPUT && test -z "${BERTH_SECRET_0+set}"`,
		"file:" + file:       `test "$PASSWORD" = "$EXPECTED" && grep -qF "$EXPECTED" $BERTH_INPUT && test ! -e ` + file,
	} {
		order, package_ := secretCall(t, "string", from, text)
		if r, c := report(t, order, package_, with("EXPECTED="+password, "BERTH_SECRET_0="+password)); c.ExitCode != 0 {
			t.Errorf("%s: %s, stderr %s", from, toJSON(t, c), r.stderr)
		}
	}
}

func TestASecretHasTheTypeOfItsInput(t *testing.T) {
	t.Parallel()
	for value, typ := range map[string]string{"0123": "string", "true": "string", `["a","b"]`: "string[]", "7": "integer"} {
		want := value
		if typ == "string" {
			want = toJSON(t, value)
		}
		order, package_ := secretCall(t, typ, "env:S", `test "$(cat $BERTH_INPUT)" = '{"password":`+want+`}'`)
		if r, c := report(t, order, package_, with("S="+value)); c.ExitCode != 0 {
			t.Errorf("%s %s: %s, log %q", typ, value, toJSON(t, c), r.log())
		}
	}
}

func TestTheAgentNeverTellsASecret(t *testing.T) {
	t.Parallel()
	const from = "env:S"
	for name, tt := range map[string]struct{ typ, from, text string }{
		"it isn't of its type":        {"integer", from, ":"},
		"it is of a class":            {"Login", from, ":"},
		"the program fails":           {"string", from, "exit 3"},
		"the program gives nothing":   {"string", from, ":"},
		"the file for it isn't there": {"string", "file:/no/such/file", ":"},
		"nothing was given for it":    {"string", "env:OTHER", ":"},
		"its place isn't understood":  {"string", "vault:x", ":"},
	} {
		order, package_ := secretCall(t, tt.typ, tt.from, tt.text)
		r, c := report(t, order, package_, with("S="+password))
		if all := r.stdout.String() + r.stderr.String() + toJSON(t, c); strings.Contains(all, "correct") || strings.Contains(all, "staple") {
			t.Errorf("%s: %s", name, all)
		}
		if tt.text == ":" && tt.typ+tt.from != "string"+from && (c.Fault == nil || c.Fault.Cause != berth.CauseConfigNotFound || !strings.Contains(c.Fault.Summary, "secret input password")) {
			t.Errorf("%s: %s", name, toJSON(t, c))
		}
	}
}

// What the program does with a secret is up to it, but for the log.
func TestASecretThatTheProgramPrintsIsNotInTheLog(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		text   string
		stdout string
	}{
		"stdout":           {`echo "it is $PASSWORD."; exit 3`, "it is ***."},
		"stderr":           {`echo "it is $PASSWORD." >&2`, ""},
		"in pieces":        {`printf 'it is %s' "${PASSWORD%taple*}" >&2; printf 'taple%s\n' "${PASSWORD#*staple}" >&2`, ""},
		"its beginning":    {`printf 'correct' >&2`, ""},
		"the result's":     {`echo "{\"c\": [\"$PASSWORD\""`, ""},
		"of another type":  {`echo "c: [\"$PASSWORD\"]"`, ""},
		"the input's file": {`cat $BERTH_INPUT >&2`, ""},
	} {
		var outputs []berth.Parameter
		if name == "the result's" || name == "of another type" {
			outputs = []berth.Parameter{{Name: "c", Type: "integer"}}
		}
		order, package_ := secretCall(t, "string", "env:S", tt.text, outputs...)
		r, c := report(t, order, package_, with("S="+password))
		if outputs != nil && (c.Fault == nil || c.Fault.Cause != berth.CauseResultMalformed) {
			t.Errorf("%s: %s", name, toJSON(t, c))
		}
		all := r.stdout.String() + r.stderr.String() + toJSON(t, c)
		if strings.Contains(all, "staple") || !strings.Contains(all, map[bool]string{true: "correct", false: redacted}[name == "its beginning"]) {
			t.Errorf("%s: %s", name, all)
		}
		if !strings.Contains(r.stdout.String(), tt.stdout) {
			t.Errorf("%s: stdout %q, want %q in it", name, r.stdout.String(), tt.stdout)
		}
	}
}

func TestAPackageThatCantBeUsedIsSaidToBeToBuildAgain(t *testing.T) {
	t.Parallel()
	f := []berth.Function{{Name: "f"}}
	for name, tt := range map[string]struct {
		how  given
		want string
	}{
		"there is none":       {with(packageVar + "=/no/such/package.json"), "not one of a package"},
		"it is not JSON":      {with(packageVar + "=" + write(t, filepath.Join(t.TempDir(), "p"), "{", 0o600)), "can't be read"},
		"it has no such name": {inPackage(t, berth.Package{Functions: []berth.Function{{Name: "g"}}}), "no function f"},
		"its program is gone": {inPackage(t, berth.Package{Entrypoint: berth.Entrypoint{Exec: "./gone"}, Functions: f}), "can't be run"},
	} {
		r, c := report(t, &agent.Order{Call: &agent.Call{Function: "f"}}, tt.how)
		if c.Fault == nil || !strings.Contains(c.Fault.Summary, tt.want) || c.Fault.Remedy == "" || c.ExitCode < 125 {
			t.Errorf("%s: %s, stderr %s", name, toJSON(t, c), r.stderr)
		}
	}
}

func TestTheProgramIsOfThePackagesFolderBeforeThePath(t *testing.T) {
	t.Parallel()
	for exec, path := range map[string]string{"program": "program", "./bin/program": "bin/program", "tool": "tools/tool"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, path), "#!/bin/sh\necho n: 5\npwd >&2\n", 0o755)
		p := berth.Package{WorkDir: dir, Entrypoint: berth.Entrypoint{Exec: exec}, Functions: []berth.Function{{Name: "f", Outputs: number}}}
		// A folder of the PATH may be relative, to where the program runs.
		r, c := report(t, &agent.Order{Call: &agent.Call{Function: "f"}}, inPackage(t, p), with("PATH=tools:/usr/bin:/bin"))
		if string(c.Result) != "5" || r.stderr.String() != dir+"\n" {
			t.Errorf("%s: %s, stderr %s", exec, toJSON(t, c), r.stderr)
		}
	}
}

func TestThePackagesLinesRunBeforeTheFunction(t *testing.T) {
	t.Parallel()
	fn := berth.Function{Name: "f", Args: []string{"-c", "echo n: $(cat made)"}, Outputs: number}
	order := &agent.Order{Call: &agent.Call{Function: "f"}}
	r, c := report(t, order, inPackage(t, berth.Package{Initialize: []string{"echo preparing", "echo 5 >made"}, Functions: []berth.Function{fn}}))
	if string(c.Result) != "5" || r.log() != "preparing\n" {
		t.Errorf("%s, log %q", toJSON(t, c), r.log())
	}
	r, c = report(t, order, inPackage(t, berth.Package{Initialize: []string{"exit 9", "echo ran"}, Functions: []berth.Function{fn}}))
	if c.ExitCode != 9 || c.Fault == nil || !strings.Contains(c.Fault.Summary, `initialize line "exit 9" ended with exit code 9`) || r.log() != "" {
		t.Errorf("%s, log %q", toJSON(t, c), r.log())
	}
}

func TestArgumentsThatCantBePassedAreSaidToBe(t *testing.T) {
	t.Parallel()
	order, _ := calling(t, berth.Function{}, "")
	order.Call.Arguments = map[string]json.RawMessage{"text": json.RawMessage(`"a\u0000b"`)}
	fn := berth.Function{Name: "f", Inputs: []berth.Parameter{{Name: "text", Type: "string"}}}
	_, c := report(t, order, inPackage(t, berth.Package{Functions: []berth.Function{fn}}))
	if c.ExitCode != exitAgent || c.Fault == nil || !strings.Contains(c.Fault.Summary, "input text has a NUL character") {
		t.Errorf("got %s", toJSON(t, c))
	}
}
