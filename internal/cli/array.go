package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// arrayFlags say that one run is many.
type arrayFlags struct {
	indices string
	mapOver string
}

func (f *arrayFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.indices, "array", "", "run one task for each index: 0-99, 1,5,9, 0-1000:10; see Arrays below")
	flags.StringVar(&f.mapOver, "map-over", "", "run one task for each line of a file, - for stdin; see Arrays below")
	cmd.MarkFlagsMutuallyExclusive("array", "map-over")
}

func (f *arrayFlags) asked(cmd *cobra.Command) bool {
	return cmd.Flags().Changed("array") || cmd.Flags().Changed("map-over")
}

// arrayHelp is what berth run says about arrays.
const arrayHelp = `

Arrays: with --array or --map-over many tasks are submitted at once, all or none.
{index} and {item} in arguments, --entrypoint, --env values and steps are replaced
by the index and the line of each; programs find them in BERTH_ARRAY_INDEX and
BERTH_ARRAY_ITEM, and the array's id in BERTH_ARRAY_ID. The array's id can be given
to berth task wait, get, logs, cancel and retry. The exit code is 0 when all have
succeeded, and otherwise that of the failed one with the lowest index; output is
not shown: see berth task logs.`

// submission reads what there is to be a task for.
func (f *arrayFlags) submission(stdin io.Reader) (berth.ArraySubmission, error) {
	var s berth.ArraySubmission
	if f.mapOver == "" {
		var err error
		s.Indices, err = berth.ParseIndices(f.indices)
		return s, err
	}
	name, in := f.mapOver, stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return s, fmt.Errorf("--map-over: %w", err)
		}
		defer file.Close()
		in = file
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, berth.MaxItemBytes)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if line == "" {
			continue
		}
		if len(s.Items) == berth.MaxArray {
			return s, fmt.Errorf("--map-over %s: it has more than %d lines, which is as many tasks as an array may have: split it", name, berth.MaxArray)
		}
		s.Indices, s.Items = append(s.Indices, len(s.Items)), append(s.Items, line)
	}
	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("--map-over %s: %w", name, err)
	}
	if len(s.Items) == 0 {
		return s, fmt.Errorf("--map-over %s: it has no lines, so there is nothing to run", name)
	}
	return s, nil
}

func (a *app) runArray(ctx context.Context, service berth.Service, submission berth.ArraySubmission, detach bool) error {
	array, err := service.SubmitArray(ctx, submission)
	if err != nil {
		return a.refused(err)
	}
	return a.attendArray(ctx, service, array, detach)
}

// attendArray tells the id of a new array, and waits for it unless nobody does.
func (a *app) attendArray(ctx context.Context, service berth.Service, array berth.Array, detach bool) error {
	if detach {
		if a.output != "table" {
			return a.print(array, nil)
		}
		fmt.Fprintln(a.stdout, array.ID)
		fmt.Fprintf(a.stderr, "berth: array of %d tasks; queued tasks advance while some berth command or server runs; berth task wait %s\n", array.Size, array.ID)
		return nil
	}
	fmt.Fprintf(a.stderr, "berth: array %s of %d tasks\n", array.ID, array.Size)
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	left := make(chan struct{})
	go func() {
		select {
		case <-interrupts:
		case <-ctx.Done():
			return
		}
		fmt.Fprintf(a.stderr, "berth: cancelling array %s; press Ctrl-C again to leave without waiting\n", array.ID)
		if _, err := service.CancelArray(ctx, array.ID); err != nil && ctx.Err() == nil {
			fmt.Fprintln(a.stderr, "berth: cannot cancel: "+err.Error())
		}
		select {
		case <-interrupts:
			close(left)
			leave()
		case <-ctx.Done():
		}
	}()
	array, err := a.watchArray(ctx, service, array.ID)
	select {
	case <-left:
		fmt.Fprintf(a.stderr, "berth: left; the array is being cancelled: berth task wait %s\n", array.ID)
		return exitError(berth.ExitCancelled)
	default:
	}
	if err != nil {
		return err
	}
	code, err := a.arrayEnded(ctx, service, array)
	if err == nil && a.output != "table" {
		err = a.print(array, nil)
	}
	if err != nil || code == 0 {
		return err
	}
	return exitError(code)
}

// arrayView shows how an array stands while somebody waits: one line that is
// drawn anew on a terminal, a line now and then elsewhere.
type arrayView struct {
	out   io.Writer
	width func() int // nil: not a terminal
	began time.Time
	said  int // hundredths that had ended when a line was written last
	why   string
}

const arrayLines = 10 // hundredths between two lines elsewhere

func (v *arrayView) show(array berth.Array) {
	if v.width != nil {
		text := []rune(fmt.Sprintf("%4s  array %s", time.Since(v.began).Round(time.Second), standingOf(array)))
		if width := v.width() - 1; len(text) > width {
			text = append(text[:width-1], '…')
		}
		fmt.Fprint(v.out, "\r\x1b[K"+string(text))
		return
	}
	if done := 100 * array.Ended() / array.Size; done >= v.said+arrayLines && done < 100 {
		v.said = done
		fmt.Fprintln(v.out, "berth: array "+array.ID+": "+standingOf(array))
	}
}

// tell says what a task of it waits for, when that has changed.
func (v *arrayView) tell(why string) {
	if why == "" || why == v.why {
		return
	}
	v.why = why
	v.clear()
	fmt.Fprintln(v.out, "berth: "+why)
}

func (v *arrayView) clear() {
	if v.width != nil {
		fmt.Fprint(v.out, "\r\x1b[K")
	}
}

// standingOf says in a line how many tasks of an array are in which states.
func standingOf(array berth.Array) string {
	text := fmt.Sprintf("%d of %d ended", array.Ended(), array.Size)
	for _, state := range []berth.TaskState{berth.StateFailed, berth.StateLost, berth.StateCancelled, berth.StateRunning, berth.StateLaunching, berth.StateQueued} {
		if n := array.States[state]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, state)
		}
	}
	return text
}

// stillAfter is how long an array may stand still before it is told what the
// first of its tasks waits for.
const stillAfter = 3 * time.Second

// watchArray shows an array until all of its tasks have ended.
func (a *app) watchArray(ctx context.Context, service berth.Service, id string) (berth.Array, error) {
	view := &arrayView{out: trusted(a.stderr), width: terminalWidth(a.stderr), began: time.Now()}
	defer view.clear()
	type seen struct {
		array berth.Array
		err   error
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	sightings := make(chan seen)
	go func() {
		defer close(sightings)
		for array, err := range service.WatchArray(ctx, id) {
			select {
			case sightings <- seen{array, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	array := berth.Array{ID: id}
	still := time.NewTimer(stillAfter)
	defer still.Stop()
	for {
		select {
		case s, ok := <-sightings:
			if !ok {
				return array, ctx.Err()
			}
			if s.err != nil {
				return array, s.err
			}
			array = s.array
			view.show(array)
		case <-still.C:
			if array.States[berth.StateRunning] == 0 {
				view.tell(a.whyStill(ctx, service, id))
			}
		}
		still.Reset(stillAfter)
	}
}

// whyStill is what a task of the array that has not started says of itself.
func (a *app) whyStill(ctx context.Context, service berth.Service, id string) string {
	for _, state := range []berth.TaskState{berth.StateLaunching, berth.StateQueued} {
		page, err := service.Tasks(ctx, berth.TaskQuery{Array: id, States: []berth.TaskState{state}, Limit: 1})
		if err == nil && len(page.Tasks) > 0 && (page.Tasks[0].Diagnosis != nil || page.Tasks[0].Reason != nil) {
			return describe(page.Tasks[0])
		}
	}
	return ""
}

// maxCauses is how many causes of failures are told of an array.
const maxCauses = 5

// arrayEnded says how an array ended, and returns the exit code for it.
func (a *app) arrayEnded(ctx context.Context, service berth.Service, array berth.Array) (int, error) {
	fmt.Fprintf(a.stderr, "berth: array %s: %d succeeded", array.ID, array.States[berth.StateSucceeded])
	for _, state := range []berth.TaskState{berth.StateFailed, berth.StateLost, berth.StateCancelled} {
		if n := array.States[state]; n > 0 {
			fmt.Fprintf(a.stderr, ", %d %s", n, state)
		}
	}
	fmt.Fprintln(a.stderr)
	if array.Failed() == 0 {
		return 0, nil
	}
	causes := map[string][]berth.Task{}
	var first berth.Task
	query := berth.TaskQuery{Array: array.ID, States: []berth.TaskState{berth.StateFailed, berth.StateLost, berth.StateCancelled}, Limit: 500}
	for {
		page, err := service.Tasks(ctx, query)
		if err != nil {
			return 0, err
		}
		for _, task := range page.Tasks {
			if first.ID == "" || task.Array.Index < first.Array.Index {
				first = task
			}
			if task.Diagnosis != nil && task.State != berth.StateCancelled {
				text := string(task.Diagnosis.Cause)
				if task.ExitCode != nil && *task.ExitCode != 0 {
					text += fmt.Sprintf(", exit code %d", *task.ExitCode)
				}
				causes[text] = append(causes[text], task)
			}
		}
		if query.After = page.Next; query.After == "" {
			break
		}
	}
	a.tellCauses(causes)
	if array.CancelledAt == nil {
		fmt.Fprintf(a.stderr, "  Run these again: berth task retry %s\n", array.ID)
	}
	return cmp.Or(first.ProcessExitCode(), berth.ExitNone), nil
}

// tellCauses says of each cause how many tasks it ended, and what the first of
// them says.
func (a *app) tellCauses(causes map[string][]berth.Task) {
	names := make([]string, 0, len(causes))
	for name := range causes {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(len(causes[y])-len(causes[x]), strings.Compare(x, y))
	})
	for i, name := range names {
		if i == maxCauses {
			fmt.Fprintf(a.stderr, "  and %d causes more\n", len(names)-i)
			break
		}
		tasks := causes[name]
		lowest := slices.MinFunc(tasks, func(x, y berth.Task) int { return x.Array.Index - y.Array.Index })
		fmt.Fprintf(a.stderr, "  %d × %s, such as index %d, task %s\n", len(tasks), name, lowest.Array.Index, lowest.ID)
		fmt.Fprint(a.stderr, wrap(lowest.Diagnosis.Summary, "    ", textWidth(a.stderr))+"\n")
	}
}

// arrayTable lists arrays, a line each.
func arrayTable(w io.Writer, arrays []berth.Array) {
	row(w, "ID", "NAME", "ON", "IMAGE", "TASKS", "ENDED", "FAILED", "RUNNING", "QUEUED", "AGE")
	for _, array := range arrays {
		name := ""
		if array.Name != nil {
			name = *array.Name
		}
		row(w, array.ID, name, array.Infrastructure, shortImage(array.Image), strconv.Itoa(array.Size), strconv.Itoa(array.Ended()), strconv.Itoa(array.Failed()),
			strconv.Itoa(array.States[berth.StateRunning]), strconv.Itoa(array.States[berth.StateQueued]), age(array.CreatedAt))
	}
}

// arrayPage shows one array, field by field.
func arrayPage(w io.Writer, array berth.Array) {
	field := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, oneLine(value)) }
	field("Array", array.ID)
	if array.Name != nil {
		field("Name", *array.Name)
	}
	field("On", array.Infrastructure)
	field("Image", array.Image)
	if len(array.Spec.Args) > 0 {
		field("Args", fmt.Sprintf("%q", array.Spec.Args))
	}
	field("Tasks", strconv.Itoa(array.Size))
	for _, state := range berth.TaskStates {
		if n := array.States[state]; n > 0 {
			field("  "+string(state), strconv.Itoa(n))
		}
	}
	field("Owner", array.Owner)
	field("Created", array.CreatedAt.Format(time.RFC3339))
	if array.CancelledAt != nil {
		field("Cancelled", array.CancelledAt.Format(time.RFC3339))
	}
	if array.RetryOf != nil {
		field("Retry of", *array.RetryOf)
	}
}
