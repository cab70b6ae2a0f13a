package berth

import "time"

// EventType says what happened to a task.
type EventType string

const (
	EventQueued    EventType = "Queued"
	EventAdmitted  EventType = "Admitted"
	EventCreated   EventType = "Created" // the pod was accepted by the API server
	EventScheduled EventType = "Scheduled"
	EventPulling   EventType = "Pulling"
	EventPulled    EventType = "Pulled"
	EventReady     EventType = "Ready"
	EventStarted   EventType = "Started" // the main container runs

	// What the agent tells; Ready is one of them.
	EventInitialized  EventType = "Initialized" // arguments are in place
	EventStepStarted  EventType = "StepStarted"
	EventStepFinished EventType = "StepFinished"
	EventHeartbeat    EventType = "Heartbeat" // never stored
	EventCompleted    EventType = "Completed" // the program ended: exit code, result

	EventFinished  EventType = "Finished"
	EventFailed    EventType = "Failed"
	EventStopped   EventType = "Stopped"
	EventLost      EventType = "Lost"
	EventDiagnosed EventType = "Diagnosed"
	EventCleared   EventType = "Cleared"
	EventRetrying  EventType = "Retrying"
	EventAdopted   EventType = "Adopted"
	EventWarning   EventType = "Warning"
	EventCancel    EventType = "CancelRequested"
)

// Event is one line of what happened to a task; append-only.
type Event struct {
	Seq     int64     `json:"seq"` // rising within a store
	TaskID  string    `json:"task"`
	Attempt int       `json:"attempt"` // 0: of the task as a whole
	Type    EventType `json:"type"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}
