import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.exception.MongoServerError;
import de.bwaldvogel.mongo.exception.MongoSilentServerException;
import de.bwaldvogel.mongo.wire.message.MongoMessage;
import java.util.List;

/** MongoDB's protocol on loopback, all in memory. Its argument is the port. */
class Server {
    public static void main(String[] arguments) {
        MemoryBackend backend = new Backend();
        backend.version(new Version());
        MongoServer server = new MongoServer(backend);
        server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow));
    }

    /** Drivers know by an error's code that a collection which is to be dropped is not there. The library tells it in words only. */
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

    /** As MongoDB 5.0 tells it: drivers of today refuse the wire version that the library tells by itself. */
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
