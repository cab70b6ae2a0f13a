//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/berth-run/berth"
)

// Every example does what its README says, on the cluster, with results by
// callback.
func TestFunctionsOfTheExamples(t *testing.T) {
	o := newOffice(t, true, "")
	compile := exec.Command("go", "build", "-trimpath", "-o", "arithmetic", ".")
	compile.Dir, compile.Env = "../../examples/arithmetic-go", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"arithmetic-bash", "arithmetic-python", "arithmetic-go", "text", "hello-node"} {
		o.build(name)
		r := o.berth("package", "test", name, "-o", "json")
		var tested []struct{ Function, State, Why string }
		if err := json.Unmarshal([]byte(r.stdout), &tested); err != nil {
			t.Fatalf("%s: exit %d: %v\n%s%s", name, r.code, err, r.stdout, r.stderr)
		}
		for _, f := range tested {
			if f.State != "succeeded" {
				t.Errorf("%s %s: %s: %s", name, f.Function, f.State, f.Why)
			}
		}
		if r.code != 0 || len(tested) == 0 {
			t.Errorf("%s: exit %d, %d functions", name, r.code, len(tested))
		}
	}
	if got := o.must("call", "arithmetic-python", "add", "a=3", "b=4"); got != "7\n" {
		t.Errorf("3 + 4 is %q", got)
	}
	if got := o.must("call", "text@1.0.0", "split", "text=a b c", "n=2"); got != `["a b","c"]`+"\n" {
		t.Errorf("split: %q", got)
	}

	o.build("failing")
	for function, want := range map[string]berth.Cause{"exits": berth.CauseExitedNonZero, "silent": berth.CauseResultMissing, "mistyped": berth.CauseResultMalformed} {
		task, r := o.call("failing", function)
		if task.State != berth.StateFailed || task.Diagnosis == nil || task.Diagnosis.Cause != want || r.code == 0 {
			t.Errorf("failing %s: exit %d, %s, %+v", function, r.code, task.State, task.Diagnosis)
		}
		if function == "exits" && r.code != 3 {
			t.Errorf("the program ended with 3, and berth call with %d", r.code)
		}
	}
}

// An image runs pinned by digest, and nodes pull it with a login of their own.
func TestFunctionRunsPinnedByDigest(t *testing.T) {
	o := newOffice(t, true, "")
	o.build("arithmetic-bash")
	first, _ := o.call("arithmetic-bash", "add", "a=1", "b=1")
	if !strings.HasPrefix(first.Image, o.address+"/arithmetic-bash@sha256:") {
		t.Errorf("image %s", first.Image)
	}
	if first.Spec.Call.Version != "1.0.0" || !strings.HasSuffix(first.Image, first.Spec.Call.Digest) {
		t.Errorf("call %+v", first.Spec.Call)
	}
	response, err := o.client().Get("https://" + o.address + "/v2/arithmetic-bash/manifests/1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a login the registry answers %d", response.StatusCode)
	}
	o.build("arithmetic-bash")
	if second, _ := o.call("arithmetic-bash", "add", "a=1", "b=1"); second.Image != first.Image {
		t.Errorf("the same source was built to another digest: %s, %s", first.Image, second.Image)
	}
}

// Results up to 1 MiB arrive byte for byte where no pod reaches the control
// plane, and when it is reached.
func TestFunctionResultsUpToAMebibyte(t *testing.T) {
	for name, callbacks := range map[string]bool{"with callbacks": true, "the callback port is closed": false} {
		t.Run(name, func(t *testing.T) {
			more := ""
			if !callbacks {
				more = "callback_to: " + hostIP(t) + ":1\n"
			}
			o := newOffice(t, callbacks, more)
			o.script("large", `python3 - <<'P'
import json,os,random
n=int(os.environ["N"]); r=random.Random(n)
text="".join(r.choice("abcdefghijklmnop \\\"\n\té€") for _ in range(n))
print(json.dumps({"text":text}))
P
`, "make:\n  input: [{name: n, type: integer}]\n  output: [{name: text, type: string}]\n")
			for _, n := range []int{0, 1, 3000, 5000, 100_000, 700_000} {
				task, r := o.call("large", "make", fmt.Sprintf("n=%d", n))
				if task.State != berth.StateSucceeded {
					t.Fatalf("%d characters: exit %d, %s, %+v\n%s", n, r.code, task.State, task.Diagnosis, r.stderr)
				}
				var text string
				if err := json.Unmarshal(task.Result, &text); err != nil || len([]rune(text)) != n {
					t.Errorf("%d characters: got %d, %v", n, len([]rune(text)), err)
				}
				want := exec.Command("python3", "-c", fmt.Sprintf(`
import random,hashlib
n=%d; r=random.Random(n)
print(hashlib.sha256("".join(r.choice("abcdefghijklmnop \\\"\n\té€") for _ in range(n)).encode()).hexdigest())`, n))
				out, err := want.Output()
				if err != nil {
					t.Fatal(err)
				}
				if sum := sha256.Sum256([]byte(text)); hex.EncodeToString(sum[:]) != strings.TrimSpace(string(out)) {
					t.Errorf("%d characters arrived changed", n)
				}
				if logs := o.printed(task.ID); strings.Contains(logs, "result ") || logs != "berth: task "+task.ID+" has printed nothing\n" {
					t.Errorf("%d characters: the log shows what is not for readers: %.100q", n, logs)
				}
			}
			task, _ := o.call("large", "make", "n=1200000")
			if task.Diagnosis == nil || task.Diagnosis.Cause != berth.CauseResultMalformed || !strings.Contains(task.Diagnosis.Summary, "1 MiB") {
				t.Errorf("more than 1 MiB: %s, %+v", task.State, task.Diagnosis)
			}
		})
	}
}

// A wrong argument is told by its name before anything is created.
func TestFunctionArgumentsAreCheckedFirst(t *testing.T) {
	o := newOffice(t, false, "")
	o.script("typed", "echo \"out: $A\"\n", `f:
  input:
    - {name: a, type: integer}
    - {name: list, type: "real[]", optional: true}
    - {name: token, type: string, secret: true, optional: true}
  output: [{name: out, type: integer}]
`)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"a=x"}, []string{"a", "integer"}},
		{[]string{}, []string{"a"}},
		{[]string{"a=1", "b=2"}, []string{"b"}},
		{[]string{"a=1", "a=2"}, []string{"a", "twice"}},
		{[]string{"a=1", "list:=[1, \"x\"]"}, []string{"list[1]", "real"}},
		{[]string{"a=1", "list:=[1"}, []string{"list", "JSON"}},
		{[]string{"a=1", "token=hunter2"}, []string{"token", "secret:"}},
		{[]string{"a=" + strings.Repeat("1", 130_000)}, []string{"a"}},
	} {
		r := o.berth(append([]string{"call", "typed", "f"}, tt.args...)...)
		if r.code != berth.ExitNone || strings.Count(strings.TrimSpace(r.stderr), "\n") != 0 {
			t.Errorf("%.60q: exit %d\n%.300s", tt.args, r.code, r.stderr)
		}
		for _, word := range tt.want {
			if !strings.Contains(r.stderr, word) {
				t.Errorf("%.60q: %q is not in %.300q", tt.args, word, r.stderr)
			}
		}
		if strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%.60q: the secret is shown", tt.args)
		}
	}
	for _, args := range [][]string{{"call", "typed", "g"}, {"call", "nothere", "f"}, {"call", "typed@2.0.0", "f"}, {"call", "typed"}} {
		if r := o.berth(args...); r.code != berth.ExitNone || r.stderr == "" {
			t.Errorf("%q: exit %d: %s", args, r.code, r.stderr)
		}
	}
	if tasks := o.tasks(); len(tasks) != 0 {
		t.Errorf("%d tasks were made", len(tasks))
	}
}

// What programs do wrong has a diagnosis, and ends.
func TestFunctionWithAProgramThatMisbehaves(t *testing.T) {
	o := newOffice(t, true, "")
	o.script("bad", `case "$1" in
garbage) head -c 3000 /dev/urandom ;;
notyaml) echo "out: [1, 2"; echo "}" ;;
othername) echo "other: 1" ;;
huge) yes "out: 1234567890" | head -c 100000000 ;;
endless) yes ;;
leaves) (sleep 300; echo late) & echo "out: 1" ;;
stubborn) trap '' TERM INT; echo ready >&2; while :; do sleep 1; done ;;
closes) exec 1>&-; exit 0 ;;
killed) kill -9 $$ ;;
file) echo "this is not the result"; echo '{"out": 5}' > "$BERTH_OUTPUT" ;;
esac
`, func() string {
		var actions strings.Builder
		for _, f := range []string{"garbage", "notyaml", "othername", "huge", "endless", "leaves", "stubborn", "closes", "killed", "file"} {
			fmt.Fprintf(&actions, "%s:\n  command: {args: [%s]}\n  output: [{name: out, type: integer}]\n", f, f)
		}
		return actions.String()
	}())
	for function, want := range map[string]berth.Cause{
		"garbage": berth.CauseResultMalformed, "notyaml": berth.CauseResultMalformed, "othername": berth.CauseResultMissing,
		"huge": berth.CauseResultMalformed, "endless": berth.CauseResultMalformed, "closes": berth.CauseResultMissing, "killed": berth.CauseSignalled,
	} {
		task, r := o.call("bad", function)
		if task.State != berth.StateFailed || task.Diagnosis == nil || task.Diagnosis.Cause != want || r.code == 0 {
			t.Errorf("%s: exit %d, %s, %+v", function, r.code, task.State, task.Diagnosis)
		} else {
			produced(want)
		}
	}
	if task, r := o.call("bad", "leaves"); task.State != berth.StateSucceeded || string(task.Result) != "1" || r.took > 15*time.Second {
		t.Errorf("a program that leaves children: %s after %s, %+v", task.State, r.took, task.Diagnosis)
	}
	if task, _ := o.call("bad", "file"); string(task.Result) != "5" {
		t.Errorf("a result in $BERTH_OUTPUT: %s, %s", task.State, task.Result)
	}
	id := strings.TrimSpace(o.must("call", "--detach", "bad", "stubborn"))
	waitFor(t, "the program's output", 60*time.Second, func() bool { return strings.Contains(o.printed(id), "ready") })
	began := time.Now()
	o.must("task", "cancel", id)
	if task := o.task(id); task.State != berth.StateCancelled || time.Since(began) > 30*time.Second {
		t.Errorf("cancelled: %s after %s", task.State, time.Since(began))
	}
}

// The value of a secret input reaches the program, and nothing else.
func TestFunctionSecretsAreSeenByTheProgramAlone(t *testing.T) {
	o := newOffice(t, true, "")
	const value = "s3cr3t-Zebra-7719"
	o.write("secrets.yml", "key: "+value+"\n")
	o.script("keeper", `echo "started with ${#TOKEN} characters" >&2
python3 - <<'P'
import json,os
print(json.dumps({"sum": sum(map(ord, os.environ["TOKEN"])), "same": json.load(open(os.environ["BERTH_INPUT"]))["token"] == os.environ["TOKEN"]}))
P
`, "f:\n  input: [{name: token, type: string, secret: true}, {name: wait, type: integer, default: 0}]\n  output: [{name: sum, type: integer}, {name: same, type: boolean}]\n")
	task, r := o.call("keeper", "f", "token=secret:key")
	sum := 0
	for _, c := range value {
		sum += int(c)
	}
	if want := fmt.Sprintf(`{"sum":%d,"same":true}`, sum); !jsonEqual(task.Result, want) {
		t.Fatalf("exit %d, %s: got %s, want %s: %+v\n%s", r.code, task.State, task.Result, want, task.Diagnosis, r.stderr)
	}
	for what, text := range map[string]string{
		"events": o.must("task", "events", task.ID), "log": o.printed(task.ID), "task": o.must("task", "get", task.ID, "-o", "json"), "server's log": o.log.String(),
	} {
		if strings.Contains(text, value) {
			t.Errorf("the secret is in the %s", what)
		}
	}
	for _, file := range []string{"berth.db", "berth.db-wal"} {
		if data, err := os.ReadFile(filepath.Join(o.dir, ".berth", file)); err == nil && bytes.Contains(data, []byte(value)) {
			t.Errorf("the secret is in %s", file)
		}
	}
	audit, err := os.ReadFile(filepath.Join(os.Getenv("BERTH_E2E_STATE"), "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(audit, []byte(value)) {
		t.Error("the secret is in what the API server was asked for")
	}
	waitFor(t, "the pod's Secret to go with it", 60*time.Second, func() bool {
		list, err := admin.CoreV1().Secrets(o.namespace).List(t.Context(), metav1.ListOptions{LabelSelector: berth.LabelTask})
		return err == nil && len(list.Items) == 0
	})
	// A Secret of the namespace does as well, and one that isn't there is told.
	if _, err := admin.CoreV1().Secrets(o.namespace).Create(t.Context(), secretOf("mine", "token", value), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if task, _ := o.call("keeper", "f", "token=kube:mine/token"); task.State != berth.StateSucceeded || !strings.Contains(string(task.Result), fmt.Sprint(sum)) {
		t.Errorf("from a Kubernetes Secret: %s, %s, %+v", task.State, task.Result, task.Diagnosis)
	}
	if task, r := o.call("keeper", "f", "token=secret:nokey"); r.code != berth.ExitNone || task.State == berth.StateSucceeded {
		t.Errorf("a key that isn't there: exit %d, %s", r.code, task.State)
	}
}

func jsonEqual(a json.RawMessage, b string) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal([]byte(b), &y) == nil && fmt.Sprint(x) == fmt.Sprint(y)
}

// A callback with another token than its attempt's own is refused and counted.
func TestCallbacksAreRefusedWithoutTheirToken(t *testing.T) {
	o := newOffice(t, true, "")
	o.script("wait", "while [ ! -e /tmp/go ]; do sleep 0.1; done; echo 'out: 1'\n", "f:\n  output: [{name: out, type: integer}]\n")
	id := strings.TrimSpace(o.must("call", "--detach", "wait", "f"))
	other := strings.TrimSpace(o.must("call", "--detach", "wait", "f"))
	for _, one := range []string{id, other} {
		waitFor(t, "the agent's first report", 60*time.Second, func() bool { return slices.Contains(o.events(one), berth.EventReady) })
	}
	task := o.task(id)
	stolen := orderToken(t, o.site, *o.task(other).Pod)
	forged := fmt.Sprintf(`{"task":%q,"attempt":1,"pod":%q,"events":[{"seq":99,"type":"Completed","at":"2026-01-02T03:04:05Z","completion":{"exitCode":0,"result":666}}]}`, id, *task.Pod)
	for name, tt := range map[string]struct {
		token, body string
		want        int
	}{
		"no token":                {"", forged, 401},
		"a wrong token":           {"abc", forged, 401},
		"another attempt's token": {stolen, forged, 401},
		"not a report":            {stolen, `{"task":1}`, 400},
		"too large":               {stolen, `{"task":"` + strings.Repeat("x", 5<<20) + `"}`, 413},
	} {
		request, _ := http.NewRequest(http.MethodPost, "https://"+o.address+"/berth/v1/callback", strings.NewReader(tt.body))
		if tt.token != "" {
			request.Header.Set("Authorization", "Bearer "+tt.token)
		}
		response, err := o.client().Do(request)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		response.Body.Close()
		if response.StatusCode != tt.want {
			t.Errorf("%s: status %d, want %d", name, response.StatusCode, tt.want)
		}
	}
	if got := o.task(id); got.State != berth.StateRunning {
		t.Errorf("a forged report ended the task: %s", got.State)
	}
	o.must("task", "cancel", id, other)
	// The token of an attempt that has ended is good for nothing.
	late := fmt.Sprintf(`{"task":%q,"attempt":1,"pod":%q,"events":[{"seq":99,"type":"Completed","at":"2026-01-02T03:04:05Z","completion":{"exitCode":0,"result":666}}]}`, other, *o.task(other).Pod)
	request, _ := http.NewRequest(http.MethodPost, "https://"+o.address+"/berth/v1/callback", strings.NewReader(late))
	request.Header.Set("Authorization", "Bearer "+stolen)
	response, err := o.client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusGone {
		t.Errorf("an old token: status %d, want 410", response.StatusCode)
	}
	metrics := o.metrics()
	for _, want := range []string{`outcome="bad_token"`, `outcome="malformed"`, `outcome="attempt_over"`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is not in the metrics:\n%s", want, grep(metrics, "callback"))
		}
	}
}

// The result of a function survives a control plane that is killed while it runs.
func TestFunctionSurvivesAKilledServer(t *testing.T) {
	o := newOffice(t, true, "")
	o.script("slow", "sleep 3; echo 'out: 42'\n", "f:\n  output: [{name: out, type: integer}]\n")
	id := strings.TrimSpace(o.must("call", "--detach", "slow", "f"))
	waitFor(t, "the agent's first report", 60*time.Second, func() bool { return slices.Contains(o.events(id), berth.EventReady) })
	o.stop(syscall.SIGKILL)
	o.start()
	if r := o.berth("task", "wait", id); r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	if task := o.task(id); string(task.Result) != "42" || task.Attempt != 1 {
		t.Errorf("result %s in attempt %d", task.Result, task.Attempt)
	}
}
