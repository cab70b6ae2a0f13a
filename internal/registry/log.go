package registry

import (
	"context"
	"io"
	"log/slog"
	"sync"

	"github.com/sirupsen/logrus"
)

// silence sends what distribution logs to slog, at debug: it logs each request
// and, as errors, what is a client's mistake. It knows logrus's standard
// logger only, which nothing else here uses.
var silence = sync.OnceFunc(func() {
	logrus.SetOutput(io.Discard)
	logrus.SetFormatter(unformatted{})
	logrus.SetLevel(logrus.DebugLevel)
	logrus.AddHook(toSlog{})
})

// unformatted spares the work of formatting what is discarded.
type unformatted struct{}

func (unformatted) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

type toSlog struct{}

func (toSlog) Levels() []logrus.Level { return logrus.AllLevels }

func (toSlog) Fire(e *logrus.Entry) error {
	ctx := context.Background()
	if log := slog.Default(); log.Enabled(ctx, slog.LevelDebug) {
		attributes := []any{"level", e.Level.String()}
		for _, key := range []string{"http.request.method", "http.request.uri", "http.response.status", "err.code", "err.detail"} {
			if value, ok := e.Data[key]; ok {
				attributes = append(attributes, key, value)
			}
		}
		log.DebugContext(ctx, "registry: "+e.Message, attributes...)
	}
	return nil
}
