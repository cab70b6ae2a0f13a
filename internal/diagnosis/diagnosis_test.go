package diagnosis

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/berth-run/berth"
)

var update = flag.Bool("update", false, "write docs/diagnosis.md and testdata/findings.txt anew")

// notYet are causes whose part of Berth does not exist yet.
var notYet = []berth.Cause{}

// The texts of all fixtures on one page, to be read by a person.
func TestFindingsReadAsBefore(t *testing.T) {
	var page strings.Builder
	for _, f := range fixtures(t) {
		finding := f.find(t)
		if finding == nil {
			continue
		}
		fmt.Fprintf(&page, "%s\n  %s\n  %s (%s)\n  %s", f.name, finding.Summary, finding.Remedy.Text, finding.Remedy.By, patienceNames[finding.Patience])
		if finding.Infrastructure {
			page.WriteString(", infrastructure")
		}
		if f.Pod == nil {
			page.WriteString(", " + retryNames[finding.Retry])
		}
		if finding.ExitCode != nil {
			fmt.Fprintf(&page, ", exit code %d", *finding.ExitCode)
		}
		page.WriteString("\n\n")
	}
	golden(t, "testdata/findings.txt", page.String())
}

var retryNames = map[Retry]string{
	RetryNone: "never accepted", RetryExists: "exists", RetryNotFound: "not found", RetryQuota: "when the quota changes", RetryTransient: "try again",
	RetryUnreachable: "unreachable", RetryUnknown: "may have been done", RetryUnauthorized: "unauthorized", RetryForbidden: "forbidden",
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is stale; run: go test ./internal/diagnosis -update\n%s", path, diff)
	}
}

func TestOrderAndNumberOfEventsChangeNothing(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, f := range fixtures(t) {
		if f.Pod == nil {
			continue
		}
		want := f.find(t)
		same := func(how string, events []corev1.Event) {
			t.Helper()
			got := f.findWith(t, events)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, events %s:\n%s", f.name, how, diff)
			}
		}
		doubled := append(slices.Clone(f.Events), f.Events...)
		same("doubled", doubled)
		for range 3 {
			random.Shuffle(len(doubled), func(i, j int) { doubled[i], doubled[j] = doubled[j], doubled[i] })
			same("shuffled", doubled)
		}
		if want == nil {
			continue
		}
		// Events expire, and a list may be cut: without those that tell nothing
		// the cause stays, and without any it stays or is not known.
		telling := slices.DeleteFunc(slices.Clone(f.Events), func(e corev1.Event) bool { return e.Type == corev1.EventTypeNormal })
		if got := f.findWith(t, telling); got == nil || got.Cause != want.Cause {
			t.Errorf("%s: without events of type Normal it is %v", f.name, got)
		}
		if got := f.findWith(t, nil); got != nil && got.Cause != want.Cause && got.Cause != berth.CauseUnknown {
			t.Errorf("%s: without events it is %s", f.name, got.Cause)
		}
	}
}

// A message that was cut may tell less, but never something else that ends a
// task sooner.
func TestCutMessagesAreNotMisread(t *testing.T) {
	for _, f := range fixtures(t) {
		if f.Pod == nil || f.Pod.Status.Phase != corev1.PodPending {
			continue
		}
		want := f.find(t)
		if want == nil {
			continue
		}
		for i := range f.Pod.Status.Conditions {
			message := f.Pod.Status.Conditions[i].Message
			for cut := 0; cut < len(message); cut += 1 + len(message)/25 {
				f.Pod.Status.Conditions[i].Message = message[:cut]
				if got := f.find(t); got == nil || got.Patience == berth.PatienceNone && want.Patience != berth.PatienceNone {
					t.Errorf("%s cut to %q: %v", f.name, message[:cut], got)
				}
			}
		}
	}
}

func TestEveryRowIsComplete(t *testing.T) {
	ranks := map[int]berth.Cause{}
	seen := map[int]bool{}
	for _, f := range fixtures(t) {
		for _, r := range f.rows(t) {
			seen[r.rank] = true
		}
	}
	for i := range table {
		r := &table[i]
		at := fmt.Sprintf("row %s of rank %d", r.cause, r.rank)
		if other, ok := ranks[r.rank]; ok {
			t.Errorf("%s: the rank is %s's too", at, other)
		}
		ranks[r.rank] = r.cause
		if r.means == "" || r.summary == "" || r.remedy == "" || r.by != berth.RemedyByUser && r.by != berth.RemedyByEngineer {
			t.Errorf("%s lacks a text", at)
		}
		if !strings.HasSuffix(r.summary, ".") || strings.HasSuffix(r.remedy, ".") || !strings.HasSuffix(r.means, ".") {
			t.Errorf("%s: summary and meaning end with a full stop, the remedy without", at)
		}
		if r.onPod != nil && r.onError != nil {
			t.Errorf("%s matches both pods and errors", at)
		}
		if (r.onPod != nil || r.onError != nil) && !seen[r.rank] {
			t.Errorf("%s has no fixture", at)
		}
	}
}

// rows are those of the table that wrote the finding of a fixture.
func (f fixture) rows(t *testing.T) []*row {
	t.Helper()
	finding := f.find(t)
	var found []*row
	for i := range table {
		if r := &table[i]; finding != nil && r.cause == finding.Cause && matches(finding.Summary, r.summary) {
			found = append(found, r)
		}
	}
	return found
}

// matches reports whether a summary was written from a template.
func matches(summary, template string) bool {
	for _, part := range placeholder.Split(template, -1) {
		_, after, found := strings.Cut(summary, part)
		if !found {
			return false
		}
		summary = after
	}
	return true
}

func TestEveryCauseHasARow(t *testing.T) {
	for _, cause := range berth.Causes {
		has := slices.ContainsFunc(table, func(r row) bool { return r.cause == cause })
		if has == slices.Contains(notYet, cause) {
			t.Errorf("%s: has a row: %v; is in notYet: %v", cause, has, !has)
		}
	}
}

// The list of causes is kept by hand: no constant is missing from it.
func TestCausesAreAllOfTheConstants(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../diagnosis.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var causes []berth.Cause
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == "Cause" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			causes = append(causes, berth.Cause(text))
		}
		return true
	})
	if diff := cmp.Diff(causes, berth.Causes); diff != "" {
		t.Errorf("constants and berth.Causes differ:\n%s", diff)
	}
}

func TestFindingsAreFitToBeShown(t *testing.T) {
	for _, f := range fixtures(t) {
		finding := f.find(t)
		if finding == nil {
			continue
		}
		if len(finding.Evidence) == 0 {
			t.Errorf("%s has no evidence", f.name)
		}
		for _, text := range []string{finding.Summary, finding.Remedy.Text} {
			if left := placeholder.FindString(text); left != "" {
				t.Errorf("%s: %s was not filled in: %s", f.name, left, text)
			}
			if strings.Contains(text, "  ") || strings.ContainsAny(text, "\n\t") || strings.HasSuffix(text, "..") || strings.HasSuffix(text, " .") {
				t.Errorf("%s: %q", f.name, text)
			}
		}
		for _, e := range finding.Evidence {
			if e.Source == "" || e.Text == "" {
				t.Errorf("%s: empty evidence %+v", f.name, e)
			}
		}
		if finding.Since.IsZero() || finding.Since.After(testNow) {
			t.Errorf("%s: since %s", f.name, finding.Since)
		}
	}
}

func TestUnseenEventsAreSaid(t *testing.T) {
	for _, f := range fixtures(t) {
		if f.Pod == nil || f.cause() != berth.CauseInsufficientCPU || f.Pod.Spec.NodeName != "" {
			continue
		}
		f.EventsUnseen = true
		finding := f.find(t)
		if last := finding.Evidence[len(finding.Evidence)-1]; !strings.Contains(last.Text, "may not list events in namespace berth") {
			t.Errorf("%s: %+v", f.name, last)
		}
	}
}

// A driver asks at every change of a pod.
func BenchmarkPod(b *testing.B) {
	for _, f := range fixtures(b) {
		if f.name == "InsufficientCPU" || f.name == "ImageNotFound" || f.name == "fine-running" {
			b.Run(f.name, func(b *testing.B) {
				for b.Loop() {
					Pod(f.Pod, "main", f.Events, true, f.subject(), testNow)
				}
			})
		}
	}
}

func TestNothingIsNoFinding(t *testing.T) {
	if f := Error(nil, "get", "pods", Subject{}, testNow); f != nil {
		t.Errorf("nil error: %+v", f)
	}
	if f := Pod(nil, "main", nil, true, Subject{}, testNow); f != nil {
		t.Errorf("nil pod: %+v", f)
	}
	if f := Pod(&corev1.Pod{}, "main", nil, true, Subject{}, testNow); f != nil {
		t.Errorf("empty pod: %+v", f)
	}
	if f := Error(fmt.Errorf("something"), "", "", Subject{}, testNow); f == nil || f.Cause != berth.CauseUnknown {
		t.Errorf("odd error: %+v", f)
	}
}
