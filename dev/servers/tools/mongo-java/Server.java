import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.exception.MongoServerError;
import de.bwaldvogel.mongo.exception.MongoSilentServerException;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;

/** Serves MongoDB's protocol on loopback, with all data in memory. The argument is the port. */
class Server {
    public static void main(String[] arguments) {
        MemoryBackend backend = new Backend();
        backend.version(new Version());
        MongoServer server = new MongoServer(backend);
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
    }

    /** Adds the error code by which drivers recognise that a collection to drop does not exist. The library sends only the message. */
    private static class Backend extends MemoryBackend {
        private static final int NAMESPACE_NOT_FOUND = 26;

        @Override
        public Document handleMessage(MongoMessage message) {
            try {
                return super.handleMessage(message);
            } catch (MongoSilentServerException error) {
                if (!"ns not found".equals(error.getMessage())) {
                    throw error;
                }
                throw new MongoServerError(NAMESPACE_NOT_FOUND, "NamespaceNotFound", error.getMessage());
            }
        }
    }

    /** Reports the version of MongoDB 5.0: current drivers refuse the library's default wire version. */
    private static class Version implements MongoVersion {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    }
}
