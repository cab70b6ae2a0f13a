package diagnosis

import (
	"errors"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/berth-run/berth"
)

// dockerFixture is an ending of a container or an answer of an Engine, and what
// it has to be taken for.
type dockerFixture struct {
	Cause    berth.Cause   `json:"cause"`
	Rank     int           `json:"rank"`
	Retry    string        `json:"retry"`
	Origin   string        `json:"origin"`
	Ending   *Ending       `json:"ending"`
	Verb     string        `json:"verb"`
	Answered bool          `json:"answered"`
	Status   int           `json:"status"`
	Is       DockerRefusal `json:"is"`
	Text     string        `json:"text"`
}

func (f dockerFixture) find() *Finding {
	subject := Subject{Infrastructure: "site-a", Server: "unix:///var/run/docker.sock", Pod: "berth-d3k1-1", Image: "docker.io/library/busybox:1.35", CPU: "2", Memory: "2Gi", Task: "d3k1"}
	if f.Ending != nil {
		return DockerEnding(*f.Ending, subject, testNow)
	}
	return DockerError(DockerAnswer{Err: errors.New(f.Text), Text: f.Text, Answered: f.Answered, Status: f.Status, Is: f.Is}, f.Verb, subject, testNow)
}

func dockerFixtures(t *testing.T) []dockerFixture {
	t.Helper()
	data, err := os.ReadFile("testdata/docker/engine.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []dockerFixture
	if err := yaml.UnmarshalStrict(data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatDockerEnginesSay(t *testing.T) {
	ranks := map[int]bool{}
	for _, f := range dockerFixtures(t) {
		ranks[f.Rank] = true
		got := f.find()
		if f.Cause == "" {
			if got != nil {
				t.Errorf("%+v is taken for %s", f, got.Cause)
			}
			continue
		}
		if got == nil || got.Cause != f.Cause {
			t.Errorf("%s of rank %d (%s) is taken for %+v", f.Cause, f.Rank, f.Text, got)
			continue
		}
		row := table[rowOfRank(t, f.Rank)]
		if !matches(got.Summary, row.summary) || got.Patience != row.patience || placeholder.MatchString(got.Summary+got.Remedy.Text) || len(got.Evidence) == 0 {
			t.Errorf("rank %d: %+v", f.Rank, got)
		}
		if f.Retry != "" && retryNames[got.Retry] != f.Retry {
			t.Errorf("rank %d (%s): %s", f.Rank, f.Text, retryNames[got.Retry])
		}
	}
	for i := range table {
		if r := &table[i]; r.onDocker != nil && !ranks[r.rank] {
			t.Errorf("row %s of rank %d has no fixture", r.cause, r.rank)
		}
	}
}

func rowOfRank(t *testing.T, rank int) int {
	t.Helper()
	for i := range table {
		if table[i].rank == rank {
			return i
		}
	}
	t.Fatalf("there is no row of rank %d", rank)
	return 0
}
