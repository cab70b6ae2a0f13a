package control

import (
	"io"
	"sync/atomic"

	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/logs"
)

// logKeeper makes a logs.Store the engine's, and counts what it is given.
type logKeeper struct {
	*logs.Store
	bytes *atomic.Int64
}

func (k logKeeper) Append(task string, attempt int, fresh bool) (engine.LogWriter, error) {
	w, err := k.Store.Append(task, attempt, fresh)
	if err != nil {
		return nil, err
	}
	return countingWriter{w, k.bytes}, nil
}

type countingWriter struct {
	engine.LogWriter
	bytes *atomic.Int64
}

func (w countingWriter) Copy(r io.Reader, rotates bool) error {
	return w.LogWriter.Copy(countingReader{r, w.bytes}, rotates)
}

type countingReader struct {
	io.Reader
	bytes *atomic.Int64
}

func (r countingReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bytes.Add(int64(n))
	return n, err
}
