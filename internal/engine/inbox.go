package engine

import "sync"

// inbox is an unbounded queue of inputs with one reader, so that whoever
// reports something to a loop never waits for it.
type inbox struct {
	mu     sync.Mutex
	inputs []input
	signal chan struct{}
}

// input is one thing that happened; it runs on the loop's goroutine.
type input func(*step)

func newInbox() *inbox { return &inbox{signal: make(chan struct{}, 1)} }

func (b *inbox) post(in input) {
	b.mu.Lock()
	b.inputs = append(b.inputs, in)
	b.mu.Unlock()
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// take returns all inputs that wait, at most limit of them.
func (b *inbox) take(limit int) []input {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(limit, len(b.inputs))
	taken := b.inputs[:n:n]
	b.inputs = b.inputs[n:]
	if len(b.inputs) == 0 {
		b.inputs = nil
	} else {
		select {
		case b.signal <- struct{}{}:
		default:
		}
	}
	return taken
}
