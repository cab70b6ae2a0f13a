package diagnosis

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/berth-run/berth"
)

var patienceNames = map[berth.Patience]string{
	berth.PatienceStart: "start_timeout", berth.PatienceNone: "none", berth.PatiencePull: "pull_grace", berth.PatienceConfig: "config_grace", berth.PatienceForever: "waits as long as it takes", berth.PatienceLaunch: "start_timeout",
}

const docsHead = `# Why a task does not start, or failed

<!-- Written from the table in internal/diagnosis by: go test ./internal/diagnosis -update -->

` + "`berth task explain ID`" + ` shows a diagnosis: a cause, one sentence with the names and numbers, what the cluster said word for word
(the evidence), and what to do and who can do it. A task that waits shows it while it waits.

**Who** is you, or the engineer of the cluster. **Waits** says how long a task that has not started stays as it is before it fails:
` + "`start_timeout`, `pull_grace` and `config_grace`" + ` are set in infra.yml (` + "`grace:`" + `; 10m, 30s and 60s if it says nothing); *none* fails at once.
**Retried** is what Berth tries again by itself as long as the program had not started, three times, whatever the task's ` + "`--retries`" + ` says;
everything else only by ` + "`--retries`" + `. Where a cluster says several things at once, the one that stands first here is the cause,
and the others stay in the evidence. **Known from** is where the words come from that it is told by: a real cluster of that version, recorded in
Berth's own tests; or *sources*: the source code of Kubernetes, or what others published.

`

var docsSections = []struct {
	title string
	rows  func() []row
	ended bool // these pods have ended: nothing waits
}{
	{"The task ended", func() []row { return slices.Concat(endingRows, exitRows) }, true},
	{"A node turned the task away", func() []row { return rejectionRows }, true},
	{"No node was found", func() []row { return schedulingRows }, false},
	{"The image", func() []row { return imageRows }, false},
	{"Preparing and starting the container", func() []row { return slices.Concat(containerRows, preparationRows) }, false},
	{"Quotas and limits of the namespace", func() []row { return quotaRows }, false},
	{"Limits of the namespace, compared before the task is submitted", func() []row { return allowanceRows }, false},
	{"The shared filesystem", func() []row { return dfsRows }, false},
	{"The proxy", func() []row { return proxyRows }, false},
	{"Rules of the cluster", func() []row { return admissionRows }, false},
	{"Access", func() []row { return accessRows }, false},
	{"The connection to the cluster", func() []row { return connectionRows }, false},
	{"The result of a function", func() []row { return agentRows }, true},
	{"On a Docker Engine: the container ended or was not started", func() []row { return dockerEndingRows }, true},
	{"On a Docker Engine: the image", func() []row { return dockerImageRows }, false},
	{"On a Docker Engine: access and refusals", func() []row { return dockerRefusalRows }, false},
	{"What Berth itself knows", func() []row { return engineRows }, false},
	{"Everything else", func() []row { return unknownRows }, false},
}

func TestDocsAreFresh(t *testing.T) {
	var page strings.Builder
	page.WriteString(docsHead)
	from := origins(t)
	count := 0
	for _, section := range docsSections {
		rows := slices.Clone(section.rows())
		slices.SortFunc(rows, func(a, b row) int { return a.rank - b.rank })
		count += len(rows)
		fmt.Fprintf(&page, "## %s\n\n| cause | what it means | what to do | who | waits | retried | known from |\n| --- | --- | --- | --- | --- | --- | --- |\n", section.title)
		for _, r := range rows {
			fmt.Fprintf(&page, "| `%s` | %s | %s | %s | %s | %s | %s |\n", r.cause, cell(r.means), cell(r.remedy), r.by, waits(r, section.ended), retried(r), from[r.rank])
		}
		page.WriteString("\n")
	}
	if count != len(table) {
		t.Errorf("the page has %d rows, the table %d", count, len(table))
	}
	golden(t, "../../docs/diagnosis.md", strings.TrimRight(page.String(), "\n")+"\n")
}

// origins says of each row, by its rank, where its fixtures are from.
func origins(t *testing.T) map[int]string {
	t.Helper()
	const sources, ourselves = "sources", "Berth itself"
	from := map[int]string{}
	add := func(rank int, recorded bool, version string) {
		if recorded {
			from[rank] = version
		} else if from[rank] == "" {
			from[rank] = sources
		}
	}
	for _, f := range fixtures(t) {
		for _, r := range f.rows(t) {
			version, _, _ := strings.Cut(f.Kubernetes, ",")
			if f.Transport != "" {
				add(r.rank, true, "real connections")
			} else {
				add(r.rank, f.Origin == "recorded", "Kubernetes "+strings.TrimPrefix(version, "v"))
			}
		}
	}
	for _, f := range dockerFixtures(t) {
		add(f.Rank, f.Origin == "recorded", "Docker Engine 20.10")
	}
	for i := range table {
		if r := &table[i]; from[r.rank] == "" && r.onPod == nil && r.onError == nil && r.onDocker == nil {
			from[r.rank] = ourselves
		}
	}
	return from
}

// cell writes a text of the table for Markdown: {cpu} becomes *cpu*.
func cell(text string) string {
	text = placeholder.ReplaceAllStringFunc(text, func(p string) string {
		switch name := p[1 : len(p)-1]; name {
		case "or_later":
			return ", or wait"
		case "advice":
			return "wait, or ask for less with --cpu and --memory"
		case "flags":
			return "`--cpu`, `--memory`"
		case "defaults":
			return "{cpu: 500m, memory: 512Mi}"
		case "cpu_now", "memory_now", "storage_now", "what":
			return ""
		case "node", "the_node":
			return "the node"
		default:
			return "*" + strings.ReplaceAll(name, "_", " ") + "*"
		}
	})
	return strings.ReplaceAll(text, "|", "\\|")
}

func waits(r row, ended bool) string {
	switch {
	case ended:
		return "it has ended"
	case r.onDocker != nil && r.retry == RetryTransient, r.onError == nil && r.onDocker == nil:
		return patienceNames[r.patience]
	}
	switch r.retry {
	case RetryQuota:
		return "queued until the quota has room"
	case RetryTransient:
		return "tried again"
	case RetryUnreachable, RetryUnauthorized:
		return patienceNames[berth.PatienceForever]
	case RetryForbidden, RetryNone:
		return "none"
	}
	return ""
}

func retried(r row) string {
	if r.infrastructure {
		return "yes"
	}
	return ""
}
