package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// workFolder is a task's working folder, and what becomes of it. Its JSON form
// is the contract of -o json.
type workFolder struct {
	Path    string           `json:"path"`
	Task    string           `json:"task"`
	State   *berth.TaskState `json:"state"`   // null: there is no such task here
	Removed bool             `json:"removed"` // with --dry-run: it would be
	Kept    string           `json:"kept"`    // why; empty for one that is removed
}

func (a *app) dataCleanCommand() *cobra.Command {
	var f dataFlags
	var older time.Duration
	var dry bool
	cmd := &cobra.Command{
		Use: "clean", Short: "Remove the working folders of tasks that have ended",
		Long: `Remove the working folders (BERTH_WORK) of tasks that have ended: those that keep_work
keeps, those of programs that were killed before they could clean up, and those that
nobody was there to remove. Folders that a result lies in are kept, as are those of
tasks that this Berth does not know: they may be of another one that shares the volume.`,
		Example: "  berth data clean --dry-run\n  berth data clean --on site-a --older-than 168h",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q, err := f.query(cmd, berth.DFSWork)
			if err == nil && older < 0 {
				err = fmt.Errorf("--older-than %s is before now: write how long ago a task has to have ended, such as 24h", older)
			}
			if err != nil {
				return err
			}
			return a.withData(cmd, func(ctx context.Context, service berth.Service) error {
				folders := []workFolder{}
				for entry, err := range service.ListData(ctx, q) {
					if berth.CodeOf(err) == berth.CodeNotFound {
						break // no task ever had one
					}
					if err != nil {
						return err
					}
					answered(ctx)
					if entry.Type == berth.DataDirectory {
						folders = append(folders, workFolder{Path: entry.Path, Task: path.Base(entry.Path)})
					}
				}
				for i := range folders {
					if err := folders[i].decide(ctx, service, older); err != nil {
						return err
					}
					if !folders[i].Removed || dry {
						continue
					}
					err := service.RemoveData(ctx, berth.DataQuery{Infrastructure: q.Infrastructure, Path: folders[i].Path, Recursive: true})
					if err != nil && berth.CodeOf(err) != berth.CodeNotFound {
						return err
					}
				}
				return a.print(folders, func(w io.Writer) { a.cleaned(w, folders, dry) })
			})
		},
	}
	a.dataFlags(cmd, &f)
	cmd.Flags().DurationVar(&older, "older-than", 0, "only of tasks that ended so long ago: 24h")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be removed, and remove nothing")
	a.outputFlag(cmd)
	return cmd
}

// decide finds out whether a folder is to be removed.
func (f *workFolder) decide(ctx context.Context, service berth.Service, older time.Duration) error {
	task, err := service.Task(ctx, f.Task)
	switch {
	case berth.CodeOf(err) == berth.CodeNotFound, berth.CodeOf(err) == berth.CodeInvalid: // no task's id, even
		f.Kept = "of no task that this Berth knows"
		return nil
	case err != nil:
		return err
	}
	f.State = &task.State
	switch {
	case !task.State.Terminal():
		f.Kept = "its task goes on"
	case f.holds(task.Result):
		f.Kept = "its task's result lies in it"
	case task.FinishedAt != nil && time.Since(*task.FinishedAt) < older:
		f.Kept = "its task ended " + took(time.Since(*task.FinishedAt)) + " ago"
	default:
		f.Removed = true
	}
	return nil
}

// holds reports whether a result lies in the folder, or the folder in the result.
// It may be seen elsewhere than on the infrastructure of the task.
func (f *workFolder) holds(result json.RawMessage) bool {
	var value any
	if len(result) == 0 || json.Unmarshal(result, &value) != nil {
		return false
	}
	var in func(any) bool
	in = func(value any) bool {
		switch value := value.(type) {
		case string:
			return strings.Contains(value+"/", path.Join("/", berth.DFSWork, f.Task)+"/") || path.IsAbs(value) && strings.HasPrefix(f.Path, strings.TrimSuffix(value, "/")+"/")
		case []any:
			return slices.ContainsFunc(value, in)
		case map[string]any:
			return slices.ContainsFunc(slices.Collect(maps.Values(value)), in)
		}
		return false
	}
	return in(value)
}

// cleaned tells what was removed, and counts on stderr what was kept and why.
func (a *app) cleaned(w io.Writer, folders []workFolder, dry bool) {
	removed, kept := 0, map[string]int{}
	var reasons []string
	for _, f := range folders {
		if f.Removed {
			removed++
			fmt.Fprintf(w, "%s (task %s)\n", oneLine(f.Path), *f.State)
			continue
		}
		reason := f.Kept
		if strings.HasSuffix(reason, " ago") {
			reason = "its task ended too lately"
		}
		if kept[reason]++; kept[reason] == 1 {
			reasons = append(reasons, reason)
		}
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	fmt.Fprintf(a.stderr, "berth: %s %d of %d working folders\n", verb, removed, len(folders))
	for _, reason := range reasons {
		fmt.Fprintf(a.stderr, "berth: kept %d: %s\n", kept[reason], reason)
	}
}
